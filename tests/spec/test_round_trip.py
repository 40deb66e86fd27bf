"""A spec survives YAML, and its hash depends on nothing but its values."""

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ncdemo.spec import SPECS, BenchSpec, Spec, StackSpec, TrainSpec, dump_spec, parse_spec
from ncdemo.spec.allowed import Schema, schema_of
from ncdemo.spec.common import EMBEDDED_MODEL

LARGEST = 2**62
KINDS = pytest.mark.parametrize("model", SPECS.values(), ids=SPECS)


def _values(schema: Schema) -> st.SearchStrategy[Any]:
    """Return a strategy for what a JSON schema allows, so that new fields are covered by themselves."""
    if options := schema.get("anyOf"):
        return st.one_of([_values(option) for option in options])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", 0), schema.get("maximum", LARGEST))
        case "number":
            low, high = schema.get("exclusiveMinimum", schema.get("minimum")), schema.get("exclusiveMaximum", schema.get("maximum"))
            edges = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
            return st.floats(low, high, allow_infinity=False, allow_nan=False, **edges)
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"].replace("$", r"\Z"), alphabet=st.characters(codec="ascii"))
        case "string":
            return st.text(st.characters(codec="utf-8"), min_size=schema.get("minLength", 0), max_size=schema.get("maxLength"))
        case "array":
            return st.lists(_values(schema["items"]), min_size=schema.get("minItems", 0), max_size=4, unique_by=repr)
        case "object" if "properties" not in schema:
            pattern, values = next(iter(schema.get("patternProperties", {}).items()), (r"^[a-z]{1,9}$", schema.get("additionalProperties")))
            names = st.from_regex(pattern.replace("$", r"\Z"), alphabet=st.characters(codec="ascii"))
            return st.dictionaries(names, st.none() if values in (True, None) else _values(values), max_size=3)
        case "object":
            return st.fixed_dictionaries({}, optional={key: _values(value) for key, value in schema["properties"].items()})
    raise AssertionError(f"no strategy for {schema}")


def _fitting(data: dict[str, Any]) -> dict[str, Any]:
    """Mend what only a validator knows."""
    if "models" in data:
        distinct = {(one.get("name", EMBEDDED_MODEL), one.get("revision")): one for one in data["models"]}
        data["models"] = [*distinct.values()]
    if train := data.get("train"):
        if "unsloth" in train or train.get("strategy") == "unsloth":
            train |= {"strategy": "unsloth", "method": "lora", "deepspeed": {}}
            data["data"] = data.get("data", {}) | {"packing": False}
        elif "deepspeed" in train:
            stage = 3 if train["deepspeed"].get("offload_params") else max(1, train["deepspeed"].get("zero_stage", 1))
            train |= {"strategy": "deepspeed", "deepspeed": train["deepspeed"] | {"zero_stage": stage}}
        if train.get("strategy", "accelerate") != "accelerate":
            train["accelerate"] = {}
        if "lora" in train:
            train["method"] = "lora"
        if train.get("max_steps") is not None:
            train.pop("epochs", None)
        if speed := train.get("speed"):
            strategy = train.get("strategy", "accelerate")
            if strategy == "unsloth":
                speed = {key: value for key, value in speed.items() if key == "fused_adamw"}
            if train.get("deepspeed", {}).get("zero_stage") == 3:
                speed = speed | {"compile": False}
            if strategy != "accelerate" or train.get("method") == "lora" or train.get("precision") == "fp32":
                speed = speed | {"fp8": False}
            train["speed"] = speed
    if ("kind" in data and data["kind"] == "bench") or data.keys() & {"models", "engines", "mode", "url", "arrivals", "trace", "search"}:
        data |= {"mode": "server"}
    for key in ("url", "prices", "lengths"):
        data.pop(key, None)
    if data.get("concurrency") == []:
        data["concurrency"] = None
    if "precision" in data and isinstance(data["precision"], list):
        data["precision"] = data["precision"][0]
    if "tensor_parallel_sizes" in data:
        data["mode"] = "server"
    if arrivals := data.get("arrivals"):
        rates = [rate for rate in arrivals.get("rates_rps", []) if rate > 0] or [1.0]
        data["arrivals"] = {"rates_rps": [*dict.fromkeys(rates)]}
    if data.get("trace") is not None:
        data["trace"] = {"file": "t.csv"} | data["trace"]
    if "models" in data:
        data["models"] = [one | {"label": f"m{i}"} for i, one in enumerate(data["models"])]
    if "max_model_len" in data or "sampling" in data:
        data["max_model_len"] = 1 + max(data.get("max_model_len", 16), 64, data.get("sampling", {}).get("max_new_tokens", 64))
    return data


def _made(model: type[Spec], data: dict[str, Any]) -> Spec | None:
    """Return the spec of generated data; None for a stack or benchmark whose parts do not fit together."""
    try:
        return model.model_validate_json(json.dumps(_fitting(data)))
    except ValidationError:
        if model is TrainSpec:
            raise
        return None


# A stack's sections one at a time, as all of them together hardly ever fit.
STACK = st.sampled_from(sorted(set(StackSpec.model_fields) - {"jobs", "pools"})).flatmap(
    lambda key: _values(schema_of(StackSpec)["properties"][key]).map(lambda value: _made(StackSpec, {key: value}))
)
SPEC = st.sampled_from([*SPECS.values()]).flatmap(
    lambda model: STACK if model is StackSpec else _values(schema_of(model)).map(lambda data: _made(model, data))
)


def test_each_section_of_a_stack_loads_by_itself() -> None:
    found = [_made(StackSpec, {key: value}) for key, value in json.loads(StackSpec().model_dump_json()).items()]
    assert None not in found


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(SPEC.filter(lambda spec: spec is not None))
def test_a_dumped_spec_reads_back_equal(spec: Spec) -> None:
    again = parse_spec(dump_spec(spec), type(spec))
    assert again == spec
    assert again.spec_hash() == spec.spec_hash()


@pytest.mark.parametrize(
    "text", ["\x85", "a\u2028b", "\ufeff", "\0", " a\n\n b ", "é: #", "2e-4", "1:30", "010", "no", "~", "=", "<<", "2024-01-01", "*a"]
)
def test_awkward_text_survives(text: str) -> None:
    spec = parse_spec("", TrainSpec, [f"data.name={json.dumps(text)}"])
    assert spec.data.name == text
    assert parse_spec(dump_spec(spec), TrainSpec) == spec


def _shuffled(data: Any, rng: random.Random) -> Any:
    if not isinstance(data, dict):
        return data
    keys = rng.sample([*data], len(data))
    return {key: _shuffled(data[key], rng) for key in keys}


@KINDS
def test_hash_is_the_same_in_any_key_order(model: type[Spec]) -> None:
    data = model().to_dict()
    for seed in range(5):
        text = yaml.safe_dump(_shuffled(data, random.Random(seed)), sort_keys=False)
        assert parse_spec(text, model).spec_hash() == model().spec_hash()


def test_hash_is_the_same_from_file_and_override() -> None:
    overrides = ["train.method=lora", "train.lora.r=8", "train.epochs=2", "telemetry={sample_hz: 5}"]
    text = "telemetry: {sample_hz: 5.0}\ntrain:\n  epochs: 2.0\n  lora: {r: 8}\n  method: lora"
    by_override, by_file = parse_spec("", TrainSpec, overrides), parse_spec(text, TrainSpec)
    assert by_override == by_file
    assert by_override.spec_hash() == by_file.spec_hash() != TrainSpec().spec_hash()
    assert parse_spec("models: [{name: a}]", BenchSpec, ["models.0.name=b"]) == parse_spec("models: [{name: b}]", BenchSpec)


class Small(Spec):
    """A spec of our own: its hash stays when the real ones get a field."""

    kind: str = "small"
    rate: float = 2e-5
    text: str = "é\n"
    many: tuple[int, ...] = (1, 2)
    none: int | None = None


def test_hash_is_golden() -> None:
    assert Small().spec_hash() == "3f3186982624"


@KINDS
def test_hash_is_the_same_in_another_process(model: type[Spec]) -> None:
    code = f"from ncdemo.spec import {model.__name__} as M; print(M().spec_hash())"
    for seed in ("0", "1"):
        run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert run.stdout.strip() == model().spec_hash()
