"""A benchmark's cells as a flat table for other tools: CSV, JSON or Parquet.

write_cells(Path("runs/bench"), "csv", None)
"""

import csv
import json
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ncdemo.report.fairness import flags
from ncdemo.report.frontier import on_frontier
from ncdemo.report.measured import Measured, read_measured
from ncdemo.spec.base import SpecError


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return one row per cell: what it was measured on, then every figure under its dotted name. Not known and not measured are None.

    Of a run that goes on or was killed these are the cells that it finished.
    """
    measured = read_measured(folder)
    best = on_frontier(measured.cells)
    about = _about(measured)
    return [
        about
        | {"engine_version": measured.versions.get(cell.engine), "server_args": _arguments(measured.spec, cell.engine)}
        | _flat(cell.model_dump(mode="json", exclude={"server_args"}))
        | {"tensor_parallel_size": cell.tensor_parallel_size or _only_size(measured.spec)}
        | {"on_pareto_frontier": best.get((cell.model, cell.lengths, cell.subject, cell.load)), "flags": "; ".join(flags(cell))}
        for cell in measured.cells
    ]


def _about(measured: Measured) -> dict[str, Any]:
    """Return what all cells of a run share."""
    record, slo, environment = measured.record, measured.spec.get("slo") or {}, measured.environment
    gpus = [str(gpu.get("name")) for gpu in environment.get("gpus") or () if isinstance(gpu, dict)]
    return {
        "run": record.run_id,
        "status": record.status,
        "spec_hash": record.spec_hash,
        "started_at": record.started_at,
        "git_commit": environment.get("git_commit"),
        "git_dirty": environment.get("git_dirty"),
        "gpu": ", ".join(dict.fromkeys(gpus)) or None,
        "gpus": len(gpus) if environment.get("gpus") is not None else None,
        "gpu_driver": environment.get("gpu_driver"),
        "cpu": (environment.get("cpu") or {}).get("model"),
        "slo.ttft_s": slo.get("ttft_s"),
        "slo.tpot_s": slo.get("tpot_s"),
    }


def _arguments(spec: dict[str, Any], engine: str) -> str | None:
    """Return what the spec appended to an engine's server's command, as one line of a shell."""
    words = (spec.get("server_args") or {}).get(engine)
    return shlex.join(map(str, words)) if words else None


def _only_size(spec: dict[str, Any]) -> int | None:
    """Return the tensor parallel size of a run whose cells don't say it, where it had one."""
    sizes: list[int] = spec.get("tensor_parallel_sizes") or []
    return sizes[0] if len(sizes) == 1 else None


def write_cells(folder: Path, form: str, output: Path | None) -> None:
    """Write the table to a file, or to stdout."""
    found = rows(folder)
    columns = list(dict.fromkeys(key for row in found for key in row))
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        _parquet(found, columns, output)
        return
    with output.open("w", encoding="utf-8", newline="") if output else nullcontext(sys.stdout) as file:
        if form == "json":
            json.dump(found, file, indent=1)
            file.write("\n")
        else:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(found)


def _parquet(found: list[dict[str, Any]], columns: list[str], output: Path | None) -> None:
    if output is None:
        raise SpecError("--format parquet: needs a file; give -o FILE")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SpecError("--format parquet: pyarrow isn't installed; run scripts/setup_env.sh --extra train, or take csv") from None
    pyarrow.parquet.write_table(pyarrow.table({name: [row.get(name) for row in found] for name in columns}), output)


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, dict):
            found |= _flat(inner, f"{name}.")
        elif isinstance(inner, list | tuple):
            found |= {f"{name}.{i}": item for i, item in enumerate(inner)}
        else:
            found[name] = inner
    return found
