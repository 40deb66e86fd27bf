"""A benchmark's cells from its run directory: of a run that goes on or was killed, those that its ledger has.

measured = read_measured(Path("runs/bench"))       # measured.cells, measured.whole
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ncdemo.spec.agreement import judged
from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.ledger import CELLS_FILE, read_ledger
from ncdemo.spec.load import load_spec
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import Cell
from ncdemo.spec.sweep import total


@dataclass(frozen=True)
class Measured:
    record: RunRecord
    cells: tuple[Cell, ...]
    planned: int | None
    """Cells that the spec asks for; None where only the run knows, as with a search."""
    whole: bool
    """False: the run goes on, or it was stopped or killed; these are the cells that it finished."""
    versions: dict[str, str]
    """Engine -> version, as far as it is known."""
    spec: dict[str, Any]
    environment: dict[str, Any]


def read_measured(folder: Path) -> Measured:
    """Read a benchmark's cells and what they were measured on. Raise SpecError where there are none."""
    try:
        record = RunRecord.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{folder}/result.json: {error.strerror}; give the folder of a benchmark's run") from None
    except ValueError:
        raise SpecError(f"{folder}/result.json: can't be read; use the version of ncdemo that wrote it") from None
    cells = record.bench.cells if record.bench else finished_cells(folder)
    if not cells:
        raise SpecError(f"{folder}: holds no benchmark that measured anything; give a run of `ncdemo bench run`")
    versions = record.bench.engine_versions if record.bench else started(folder)
    spec, environment, asked_for = _mapping(folder / "spec.yaml"), _mapping(folder / "environment.json"), planned(folder)
    return Measured(record, tuple(cells), asked_for, is_whole(record, len(cells), asked_for), versions, spec, environment)


def finished_cells(folder: Path) -> list[Cell]:
    """Return the cells of the ledger, judged as at a run's end. Raise SpecError when it can't be read."""
    reference = _mapping(folder / "spec.yaml").get("reference")
    return judged((entry.cell for entry in read_ledger(folder / CELLS_FILE).entries), reference if isinstance(reference, str) else None)


def planned(folder: Path) -> int | None:
    """Return how many cells a run's spec asks for; None where only the run knows, or this version can't read the spec."""
    with suppress(SpecError):
        return total(load_spec(folder / "spec.yaml", BenchSpec))
    return None


def is_whole(record: RunRecord | None, finished: int, planned: int | None) -> bool:
    """Say whether nothing is missing: the run came to its end, or failed with every cell in its result."""
    return record is not None and record.bench is not None and (record.status == "finished" or finished == planned)


def so_far(finished: int, planned: int | None) -> str:
    """Return how far an unfinished run came, in words."""
    return f"{finished} cell{'' if finished == 1 else 's'}" if planned is None else f"{finished} of {planned} cells"


def started(folder: Path) -> dict[str, str]:
    """Return the versions that servers were started with."""
    told = [_mapping(path) for path in sorted(folder.glob("servers/*/command.json"))]
    return {one["engine"]: version for one in told if (version := one.get("version") or one.get("server_says"))}


def _mapping(path: Path) -> dict[str, Any]:
    """Return a file's mapping; empty where there is none that can be read, so that its figures are not known."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
