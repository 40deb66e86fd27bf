"""A benchmark's cells as a flat table for other tools: CSV, JSON or Parquet.

write_cells(Path("runs/bench"), "csv", None)
"""

import csv
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.result import RunRecord


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return one row per cell: the run's own facts, then every figure under its dotted name. Not measured is None."""
    try:
        record = RunRecord.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{folder}/result.json: can't be read ({str(error).splitlines()[0]}); give the folder of a run") from None
    if record.bench is None:
        raise SpecError(f"{folder}: holds no benchmark that measured anything; give a run of `ncdemo bench run`")
    about = {"run": record.run_id, "spec_hash": record.spec_hash, "started_at": record.started_at}
    return [about | _flat(cell.model_dump(mode="json")) for cell in record.bench.cells]


def write_cells(folder: Path, form: str, output: Path | None) -> None:
    """Write the table to a file, or to stdout."""
    found = rows(folder)
    columns = list(dict.fromkeys(key for row in found for key in row))
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
