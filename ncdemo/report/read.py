"""A run directory to typed data, also when the run was killed: what is missing or torn is said, never guessed.

run = read_run(Path("runs/demo"))
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ncdemo.report.columns import Columns, to_columns
from ncdemo.report.garbage import no_collection
from ncdemo.report.lines import records
from ncdemo.report.measured import finished_cells, is_whole, planned, started
from ncdemo.report.requests import CellKey, Latencies, to_latencies
from ncdemo.report.samples import Telemetry, read_telemetry
from ncdemo.spec import SpecError
from ncdemo.spec.ledger import CELLS_FILE
from ncdemo.spec.result import SCHEMA_VERSION, DiskFull, EvalRecord, RunRecord
from ncdemo.spec.result_bench import Cell, subject_of
from ncdemo.spec.run_folder import ENGINES_FILE, node_folder, node_samples

# Without the first two a step cannot be drawn.
STEP = ("step", "end_s", "loss", "learning_rate", "grad_norm", "tokens_per_s", "tokens", "step_time_s")
ENGINE = ("time_s", "running", "waiting", "kv_cache_used")
FILES = ("result.json", "spec.yaml", "environment.json", "steps.jsonl", "evals.jsonl", "requests.jsonl", "samples.jsonl")


@dataclass(eq=False)
class Run:
    """One run directory. `problems` are sentences for the reader about what could not be read."""

    folder: str
    kind: str | None = None
    record: RunRecord | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    spec_text: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    steps: Columns = field(default_factory=dict)
    evals: list[EvalRecord] = field(default_factory=list)
    cells: dict[CellKey, Latencies] = field(default_factory=dict)
    measured: list[Cell] = field(default_factory=list)
    """A benchmark's cells: the result's, and where there is none, those that the ledger says are finished."""
    planned: int | None = None
    """Cells that the spec asks for; None where only the run knows, as with a search."""
    versions: dict[str, str] = field(default_factory=dict)
    """Engine -> version; without a result those of the servers that were started."""
    engines: dict[str, Columns] = field(default_factory=dict)
    """Engine with its variant -> what it said of itself, over time."""
    telemetry: Telemetry | None = None
    """Of the first node."""
    nodes: dict[int, Telemetry | None] = field(default_factory=dict)
    """Of those after it, by rank, where their folders lie beside this one."""
    problems: list[str] = field(default_factory=list)
    label: str = ""
    """Short and unique in one report."""

    @property
    def whole(self) -> bool:
        """Whether a benchmark has all of its cells."""
        return is_whole(self.record, len(self.measured), self.planned)

    @property
    def prompt_hash(self) -> str | None:
        """Of a benchmark's first cell."""
        if self.record and self.record.bench:
            return self.record.bench.prompt_hash
        gates = self.measured[0].gates if self.measured else None
        return gates.prompt_hash if gates else None

    @property
    def before(self) -> EvalRecord | None:
        """The untrained model: as recorded; of a run without a result, its evaluation at step 0."""
        if self.record and self.record.train:
            return self.record.train.before
        return next((e for e in self.evals if e.step == 0), None)

    @property
    def after(self) -> EvalRecord | None:
        """The trained model: only a run that came to its end has one."""
        return self.record.train.after if self.record and self.record.train else None


def read_run(path: Path) -> Run:
    """Read one run directory. Raise SpecError when the path is not one."""
    _check(path)
    run = Run(folder=path.resolve().name)
    run.record = _result(path, run.problems)
    run.problems += [_shown(outage) for outage in run.record.disk_full] if run.record else []
    run.spec_text, run.spec = _spec(path, run.problems)
    run.environment = _json_dict(path / "environment.json", run.problems) or {}
    run.steps = to_columns(records(path / "steps.jsonl", run.problems), STEP, needed=2)
    run.evals = _evals(path, run.problems)
    run.cells = to_latencies(records(path / "requests.jsonl", run.problems), run.problems)
    _measured(path, run)
    run.engines = _engines(records(path / ENGINES_FILE, run.problems))
    with no_collection():
        planned = run.environment.get("nodes")
        for node, samples in node_samples(path):
            if isinstance(planned, int) and node >= planned:
                continue  # of an attempt with more
            found: list[str] = []
            run.nodes[node] = read_telemetry(samples, found)
            run.problems += [f"Node {node}: {problem}" for problem in found]
        run.telemetry = read_telemetry(path / "samples.jsonl", run.problems)
    run.kind = _kind(run)
    expected = ["samples.jsonl", "steps.jsonl" if run.kind == "train" else "requests.jsonl"] if run.kind else ["samples.jsonl"]
    run.problems += [f"{name} is absent." for name in expected if not (path / name).exists()]
    if run.kind == "train" and run.telemetry.count and isinstance(planned, int):
        absent = [node for node in range(1, planned) if node not in run.nodes]
        run.problems += [
            f"Node {node} has no samples here: put its folder, {node_folder(Path(run.folder), node)}, beside {run.folder}."
            for node in absent
        ]
    return run


def _measured(path: Path, run: Run) -> None:
    if run.record and run.record.bench:
        run.measured, run.versions = run.record.bench.cells, run.record.bench.engine_versions
    else:
        run.versions = started(path)
        try:
            run.measured = finished_cells(path)
        except (SpecError, OSError) as error:
            run.problems.append(f"{CELLS_FILE} cannot be read ({error}).")
    run.planned = planned(path)


def _engines(batches: Iterable[list[dict[str, Any]]]) -> dict[str, Columns]:
    found: dict[str, list[dict[str, Any]]] = {}
    for batch in batches:
        for said in batch:
            found.setdefault(subject_of(str(said.get("engine")), said.get("variant")), []).append(said)
    return {subject: to_columns([said], ENGINE) for subject, said in found.items()}


def _check(path: Path) -> None:
    if not path.exists():
        raise SpecError(f"{path}: no such folder; give a run directory, which ncdemo train or ncdemo bench wrote")
    if not path.is_dir():
        raise SpecError(f"{path}: is a file; give the run directory that holds it")
    if not any((path / name).is_file() for name in FILES):
        inside = sorted(child for child in path.iterdir() if child.is_dir() and any((child / name).is_file() for name in FILES))
        remedy = f"it holds some: give {inside[-1]}" if inside else "give a folder that ncdemo train or ncdemo bench wrote"
        raise SpecError(f"{path}: is not a run directory (it has no result.json, spec.yaml or records); {remedy}")


def _shown(outage: DiskFull) -> str:
    """Return what a full disk did to a file of the run."""
    lasted = "until its end" if outage.end_s is None else f"for {outage.end_s - outage.start_s:.1f} s"
    kept = f"{outage.lost} records are lost" if outage.lost else f"{outage.held} records waited in memory and are all there"
    return f"{outage.file}: no room on the run's disk {lasted}, from {outage.start_s:.1f} s on ({outage.why}); {kept}."


def _result(path: Path, problems: list[str]) -> RunRecord | None:
    data = _json_dict(path / "result.json", problems)
    if data is None:
        return None
    if data.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        problems.append(
            f"result.json has schema version {data['schema_version']}; this ncdemo reads {SCHEMA_VERSION}: use the one that wrote it."
        )
        return None
    while True:
        try:
            return RunRecord.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            problems.append(f"result.json: {'.'.join(map(str, first['loc']))}: {first['msg']}; the value is left out.")
            if not _prune(data, list(first["loc"]), unknown=first["type"] == "extra_forbidden"):
                return None


def _prune(data: Any, loc: list[Any], unknown: bool) -> bool:
    """Null the value that does not fit, or what holds it if it is null or absent already. False: nothing left to null.

    A key the schema does not know, and an entry of a list, are taken out instead.
    """
    while len(loc) > 0:
        holder = data
        for part in loc[:-1]:
            holder = holder[part]
        if isinstance(holder, list) or unknown:
            del holder[loc[-1]]
            return True
        if holder.get(loc[-1]) is not None:
            holder[loc[-1]] = None
            return True
        loc = loc[:-1]
    return False


def _spec(path: Path, problems: list[str]) -> tuple[str | None, dict[str, Any]]:
    try:
        text = (path / "spec.yaml").read_text(encoding="utf-8", errors="replace")
        data = yaml.safe_load(text)
    except FileNotFoundError:
        problems.append("spec.yaml is absent.")
        return None, {}
    except OSError as error:
        problems.append(f"spec.yaml cannot be read ({error.strerror}).")
        return None, {}
    except (yaml.YAMLError, ValueError, RecursionError):
        problems.append("spec.yaml is not valid YAML.")
        return text, {}
    return text, data if isinstance(data, dict) else {}


def _json_dict(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        problems.append(f"{path.name} is absent.")
        return None
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror}).")
        return None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        problems.append(f"{path.name} is not whole JSON.")
        return None
    return data


def _evals(path: Path, problems: list[str]) -> list[EvalRecord]:
    found, strange = [], 0
    for batch in records(path / "evals.jsonl", problems):
        for item in batch:
            try:
                found.append(EvalRecord.model_validate(item))
            except ValidationError:
                strange += 1
    if strange:
        problems.append(
            f"evals.jsonl: {strange} evaluations do not fit the schema (a loss that is no number, or another version of ncdemo); they are left out."
        )
    return found


def _kind(run: Run) -> str | None:
    if run.record:
        return run.record.kind
    if run.spec.get("kind") in ("train", "bench"):
        return str(run.spec["kind"])
    return "train" if len(run.steps["step"]) or run.evals else "bench" if run.cells or run.measured else None
