"""The page of a run directory's records."""

from pydantic import BaseModel

from ncdemo.spec import ledger, result, result_bench, result_engine
from ncdemo.spec.allowed import Schema
from scripts.reference.markdown import anchor, page, table

RECORDS = {
    "result.json": result.RunRecord,
    "steps.jsonl": result.StepRecord,
    "evals.jsonl": result.EvalRecord,
    "requests.jsonl": result_bench.RequestRecord,
    "engines.jsonl": result_engine.EngineSample,
    "samples.jsonl": result.Sample,
    "cells.jsonl": ledger.LedgerEntry,
}


def results_page() -> str:
    """Return what each file of a run directory holds."""
    intro = (
        "A run is a folder with the files below, and `spec.yaml` (the resolved spec), `environment.json` (hardware, versions, source), "
        "`log.txt`, `servers/<subject>/` with each server's `command.json` and `server.log`, and, after training, `model/`. "
        "A `.jsonl` file has one JSON object per line. Units are in the names: `_s` seconds, "
        "`_bytes` bytes, `_pct` 0 to 100, `_hz` hertz, `_w` watts, `_j` joules, `_rps` requests per second. What was not measured is "
        "`null`, never 0. Formulas: [measurement](../measurement.md)."
    )
    files = table(("file", "of each line, or the whole"), [(f"`{file}`", record_link(model)) for file, model in RECORDS.items()])
    found: dict[str, Schema] = {}
    for model in (*RECORDS.values(), ledger.LedgerHead):
        schema = model.model_json_schema()
        found |= {model.__name__: schema, **schema.get("$defs", {})}
    return page("Results", intro, f"Schema version {result.SCHEMA_VERSION}.", files, *(record(name, found[name]) for name in found))


def record_link(model: type[BaseModel]) -> str:
    first = f"[{ledger.LedgerHead.__name__}]({anchor('LedgerHead')}) first, then " if model is ledger.LedgerEntry else ""
    return f"{first}[{model.__name__}]({anchor(model.__name__)})"


def record(name: str, about: Schema) -> str:
    rows = [(f"`{key}`", kind_of(one), one.get("description", "").replace("*", r"\*")) for key, one in about["properties"].items()]
    return "\n\n".join(filter(None, [f"## {name}", about.get("description", ""), table(("field", "type", "meaning"), rows)]))


def kind_of(about: Schema) -> str:
    """Return a field's JSON type in words, with links to records."""
    if "$ref" in about:
        name = about["$ref"].rsplit("/", 1)[-1]
        return f"[{name}]({anchor(name)})"
    if "anyOf" in about:
        return " or ".join(kind_of(one) for one in about["anyOf"])
    if "const" in about or "enum" in about:
        return ", ".join(f"`{one}`" for one in about.get("enum", [about.get("const")]))
    if about["type"] == "array":
        entries = about.get("prefixItems") or [about["items"]]
        return f"list of {', '.join(kind_of(one) for one in entries)}"
    if about["type"] == "object":
        return f"text to {kind_of(about['additionalProperties'])}"
    return {"integer": "whole number", "string": "text", "boolean": "true or false"}.get(about["type"], about["type"])
