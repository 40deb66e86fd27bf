"""Follow a run directory while it grows: whole lines alone, each read once. For whoever shows or exports a run that lives.

state = RunState(Path("runs/demo")); state.update(); state.step["loss"]
"""

import datetime
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ncdemo.spec.attempts import is_first
from ncdemo.spec.base import SpecError
from ncdemo.spec.gpu_errors import GpuErrors
from ncdemo.spec.ledger import CELLS_FILE
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import Cell
from ncdemo.spec.run_folder import ENGINES_FILE

TAIL_BYTES = 1 << 16
"""Longer than any sample: 16 GPUs take 10 kB."""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HELD_S = 2.0
"""What a sample lacks is taken from those of so long before it: at high rates most lack something."""


class Follow:
    """A JSON Lines file of which `new` returns what has come since it was last asked.

    A file that shrank or was replaced, as that of a run which goes on from a checkpoint, is begun again, and `again` is called first.
    Lines of which `only` is false are passed over.
    """

    def __init__(self, path: Path, again: Callable[[], None] = lambda: None, *, only: Callable[[bytes], bool] = bool) -> None:
        self._path, self._at, self._again, self._only = path, 0, again, only
        self._inode: int | None = None

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield records of whole lines; a line that is none is passed over, as a killed run may leave one."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if file.seek(0, 2) < self._at or inode != (self._inode or inode):
                    self._at = 0
                    self._again()
                self._inode = inode
                file.seek(self._at)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._at += len(line)
                    if self._only(line) and (found := _record(line)) is not None:
                        yield found
        except OSError:
            return


def last_sample(path: Path) -> dict[str, Any] | None:
    """Return the newest whole Sample of samples.jsonl, read from its end; None without one.

    At high rates most samples are too close to the one before for CPU, disk and network, and slow fields of GPUs come once a second:
    what it lacks is from the samples up to HELD_S before it.
    """
    newest: dict[str, Any] | None = None
    first = False
    for sample in last_records(path):
        if newest is None:
            newest = sample
        elif first or newest.get("time_s", 0.0) - sample.get("time_s", 0.0) > HELD_S:
            break
        else:
            gpus = _gpus(newest.get("gpus"), sample.get("gpus"))
            newest |= {name: sample.get(name) for name, value in newest.items() if value is None}
            newest |= {"gpus": gpus} if gpus else {}
        first = is_first(sample.get("tick"), sample.get("scheduling"))  # what comes before is of another attempt, maybe on another machine
    return newest


def _gpus(newest: Any, before: Any) -> list[dict[str, Any]]:
    """Return the newest rows with what only earlier ones have; one with an error stays as it is, and XIDs are of their sample."""
    earlier = {row.get("index"): row for row in before or () if isinstance(row, dict)}
    found = []
    for row in newest or ():
        known = {} if row.get("error") else earlier.get(row.get("index"), {})
        found.append(row | {name: value for name, value in known.items() if row.get(name) is None and name not in ("error", "xids")})
    return found


def last_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the last whole records of a JSON Lines file, from its end."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return
    yield from (found for line in reversed(lines) if (found := _record(line)) is not None)


def last_lines(path: Path, lines: int) -> list[str]:
    """Return the last lines of a log, without what would move a terminal's cursor; of a bar that is drawn over itself, the last."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    found = [ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in text.split("\n")]
    found = ["".join(c for c in line if c.isprintable() or c == " ") for line in found]
    return [line for line in found if line.strip()][-lines:]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class NodeState:
    """What a node's samples say of its machine so far: of a node after the first, all that its folder has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sample: dict[str, Any] = {}
        """The last Sample."""
        self.errors = GpuErrors()
        """Of its GPUs."""
        self._errors = Follow(folder / "samples.jsonl", self.errors.forget, only=self.errors.tells)

    def update(self) -> None:
        for sample in self._errors.new():
            self.errors.take(sample)
        self.sample = last_sample(self.folder / "samples.jsonl") or self.sample


class RunState(NodeState):
    """What a run directory says so far. `update` reads what is new; nothing is ever read twice but result.json."""

    def __init__(self, folder: Path) -> None:
        """Raise SpecError when the folder is no run's."""
        super().__init__(folder)
        if not (folder / "result.json").is_file():
            raise SpecError(
                f"{folder}: is not a run directory (it has no result.json); give a folder that ncdemo train or ncdemo bench wrote"
            )
        self.record: RunRecord | None = None
        self.totals: dict[str, float] = {}
        self.forget_steps()
        self.step: dict[str, Any] = {}
        """The last StepRecord."""
        self.evals: dict[str, dict[str, Any]] = {}
        """EvalRecords: the first under `first`, the newest under `last`."""
        self.requests: dict[str, dict[bool, int]] = {}
        """Engine -> whether it went well -> how many."""
        self.cells: dict[str, dict[str, Any]] = {}
        """Ledger key -> Cell, in the order in which they ended."""
        self.cell_s: dict[str, float] = {}
        """Ledger key -> seconds that the cell took, without those that failed."""
        self.cell_end_s = 0.0
        """When the last cell ended, on the run's clock."""
        self.engines: dict[str, dict[str, Any]] = {}
        """Engine -> its newest EngineSample."""
        self.progress_s = 0.0
        """When the last step, evaluation or request ended, on the run's clock."""
        self._steps = Follow(folder / "steps.jsonl", self.forget_steps)
        self._evals = Follow(folder / "evals.jsonl")
        self._requests = Follow(folder / "requests.jsonl", self.forget_requests)
        self._ledger = Follow(folder / CELLS_FILE, self.forget_cells)
        self._engines = Follow(folder / ENGINES_FILE)

    def forget_steps(self) -> None:
        """Begin to count again: the file of the steps has begun again."""
        self.totals.update(dict.fromkeys(("steps", "examples", "tokens", "target_tokens", "step_time_s"), 0.0))

    def forget_requests(self) -> None:
        self.requests.clear()

    def forget_cells(self) -> None:
        self.cells.clear()
        self.cell_s.clear()

    def update(self) -> None:
        with suppress(OSError, ValueError, ValidationError):  # written anew at this moment, or by another version
            self.record = RunRecord.model_validate_json((self.folder / "result.json").read_bytes())
        for step in self._steps.new():
            self.on_step(step)
        for evaluation in self._evals.new():
            self.evals.setdefault("first", evaluation)
            self.evals["last"] = evaluation
            self._reached(evaluation.get("end_s"))
        for request in self._requests.new():
            self.on_request(request)
        for entry in self._ledger.new():
            if isinstance(entry.get("cell"), dict):
                self.on_cell(str(entry.get("key")), entry)
        for sample in self._engines.new():
            self.engines[str(sample.get("engine"))] = sample
        super().update()

    def on_step(self, step: dict[str, Any]) -> None:
        self.step = step
        self.totals["steps"] = step.get("step", self.totals["steps"])
        for name in ("examples", "tokens", "target_tokens", "step_time_s"):
            self.totals[name] += step.get(name) or 0
        self._reached(step.get("end_s"))

    def on_cell(self, key: str, entry: dict[str, Any]) -> None:
        self.cells[key] = entry["cell"]
        self.cell_end_s = entry.get("end_s") or 0.0
        if not entry["cell"].get("error") and (took := entry.get("wall_s")):
            self.cell_s[key] = took

    def on_request(self, request: dict[str, Any]) -> None:
        counts = self.requests.setdefault(str(request.get("engine")), {True: 0, False: 0})
        counts[bool(request.get("ok"))] += 1
        self._reached(max([request.get("sent_s") or 0.0, *(request.get("chunk_s") or ())]))

    def measured(self) -> list[Cell]:
        """Return a benchmark's finished cells: the result's, and before there is one, the ledger's."""
        if self.record and self.record.bench:
            return self.record.bench.cells
        found = []
        for cell in self.cells.values():
            with suppress(ValidationError):  # by another version
                found.append(Cell(**cell))
        return found

    @property
    def running(self) -> bool:
        return self.record is not None and self.record.status == "running"

    @property
    def started(self) -> float | None:
        """When the run's clock was zero, in seconds since 1970."""
        return datetime.datetime.fromisoformat(self.record.started_at).timestamp() if self.record else None

    def _reached(self, at_s: float | None) -> None:
        self.progress_s = max(self.progress_s, at_s or 0.0)
