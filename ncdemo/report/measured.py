"""A benchmark's cells from its run directory: of a run that goes on or was killed, those that its ledger has.

measured = read_measured(Path("runs/bench"))       # measured.cells, measured.whole
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ncdemo.spec.base import SpecError
from ncdemo.spec.ledger import CELLS_FILE, read_ledger
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import Cell


@dataclass(frozen=True)
class Measured:
    record: RunRecord
    cells: tuple[Cell, ...]
    whole: bool
    """False: the run has no result yet, and never will have if it was killed."""
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
    ledger = read_ledger(folder / CELLS_FILE) if record.bench is None else None
    cells = record.bench.cells if record.bench else [entry.cell for entry in ledger.entries] if ledger else []
    if not cells:
        raise SpecError(f"{folder}: holds no benchmark that measured anything; give a run of `ncdemo bench run`")
    versions = record.bench.engine_versions if record.bench else _started(folder)
    spec, environment = _mapping(folder / "spec.yaml"), _mapping(folder / "environment.json")
    return Measured(record, tuple(cells), record.bench is not None, versions, spec, environment)


def _started(folder: Path) -> dict[str, str]:
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
