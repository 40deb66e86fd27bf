"""A run directory as somebody watches it: how far it is, its newest figures, whether it still lives, and the end of its log.

watched = Watched(Path("runs/demo")); watched.update(); watched.done, watched.total
"""

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ncdemo.spec import BenchSpec, TrainSpec
from ncdemo.spec.base import SpecError
from ncdemo.spec.follow import NodeState, RunState, last_lines, last_records
from ncdemo.spec.load import load_spec
from ncdemo.spec.run_folder import node_samples
from ncdemo.spec.sweep import cells, total

SILENT_S = 30.0
"""Nothing written for so long, though samples are: the run was killed, as the sampler ends with it."""
RECENT_S = 30.0
"""Of a benchmark's tokens per second while it runs."""
LINKS_S = 10.0
"""Of what NVLinks carry: a counter is read once a second and given with the next sample, so one second would be too rough."""
MOST_LOSSES = 4096


class WatchedNode(NodeState):
    """Beside what NodeState knows: what NVLinks carry."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._links: dict[int, deque[tuple[float, int, int]]] = {}
        """GPU -> time, bytes sent and received over NVLink, of the last LINKS_S."""

    def update(self) -> None:
        super().update()
        for sample in reversed(list(last_records(self.folder / "samples.jsonl"))):
            for gpu in sample.get("gpus") or ():
                if (sent := gpu.get("nvlink_tx_bytes")) is not None and (received := gpu.get("nvlink_rx_bytes")) is not None:
                    self._link(gpu["index"], sample["time_s"], sent, received)

    def _link(self, index: int, time_s: float, sent: int, received: int) -> None:
        known = self._links.setdefault(index, deque())
        if known and time_s <= known[-1][0]:
            return
        if known and (sent < known[-1][1] or received < known[-1][2]):
            known.clear()  # another attempt, whose counters began again
        known.append((time_s, sent, received))
        while time_s - known[0][0] > LINKS_S and len(known) > 2:
            known.popleft()

    def nvlink_bytes_per_s(self, index: int) -> tuple[float, float] | None:
        """Sent and received over all links, the mean of the last 10 s; None before a counter was read twice."""
        known = self._links.get(index) or deque()
        if len(known) < 2 or self.sample.get("time_s", 0.0) - known[-1][0] > LINKS_S:
            return None
        (first_s, *first), (last_s, *last) = known[0], known[-1]
        sent, received = (after - before for before, after in zip(first, last, strict=True))
        return sent / (last_s - first_s), received / (last_s - first_s)

    @property
    def unsampled_s(self) -> float:
        """Since its newest sample was written."""
        try:
            return max(0.0, time.time() - (self.folder / "samples.jsonl").stat().st_mtime)
        except OSError:
            return 0.0


class Watched(WatchedNode, RunState):
    """Beside what RunState knows: the losses so far, what was planned, and the further nodes whose folders lie beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._nodes: dict[int, WatchedNode] = {}
        self._planned_nodes: int | None = None
        self.losses: list[float] = []
        """Of all steps, thinned out when they become many."""
        self.first_end_s: float | None = None
        self.spec = _spec(folder)
        self.total = _total(self.spec)
        """Steps or cells that the spec asks for; None where only the run knows (epochs, a search)."""
        self._plan = [cell.key for cell in cells(self.spec)] if isinstance(self.spec, BenchSpec) else []
        self._every, self._since = 1, 0
        self._tokens: deque[tuple[float, float, int]] = deque(maxlen=10_000)
        """Send, end and output tokens of each answer."""

    def update(self) -> None:
        super().update()
        self._planned_nodes = self._planned_nodes or _planned_nodes(self.folder)
        for rank, path in node_samples(self.folder) if self.record and self.record.kind == "train" else ():
            if self._planned_nodes is None or rank < self._planned_nodes:  # else of an attempt with more
                self._nodes.setdefault(rank, WatchedNode(path.parent)).update()

    @property
    def machines(self) -> Mapping[int, WatchedNode]:
        """The nodes whose samples are here, by rank."""
        return {0: self, **dict(sorted(self._nodes.items()))}

    @property
    def elsewhere(self) -> list[int]:
        """The nodes that have their samples with themselves."""
        planned = self._planned_nodes if self.sample and self.record and self.record.kind == "train" else None
        return [rank for rank in range(1, planned or 1) if rank not in self._nodes]

    def forget_steps(self) -> None:
        super().forget_steps()
        self.losses, self.first_end_s, self._every, self._since = [], None, 1, 0

    def forget_requests(self) -> None:
        super().forget_requests()
        self._tokens.clear()

    def on_step(self, step: dict[str, Any]) -> None:
        super().on_step(step)
        self.first_end_s = self.first_end_s or step.get("end_s")
        self._since += 1
        if self._since >= self._every and isinstance(step.get("loss"), int | float):
            self.losses.append(step["loss"])
            self._since = 0
        if len(self.losses) >= MOST_LOSSES:
            self.losses, self._every = self.losses[::2], self._every * 2

    def on_request(self, request: dict[str, Any]) -> None:
        super().on_request(request)
        if chunks := request.get("chunk_s"):
            start_s = min(request.get("sent_s", chunks[0]), chunks[-1] - 1e-9)
            self._tokens.append((start_s, chunks[-1], request.get("output_tokens") or 0))

    @property
    def done(self) -> int:
        """Steps or cells."""
        return len(self.cells) if self.record and self.record.kind == "bench" else int(self.totals["steps"])

    @property
    def age_s(self) -> float:
        """How long the run takes, or took."""
        if self.record is None:
            return 0.0
        return self.record.duration_s if self.record.duration_s is not None else max(0.0, time.time() - (self.started or 0.0))

    @property
    def left_s(self) -> float | None:
        """What the remaining steps take at the pace so far; None of a benchmark, whose cells take unequal times."""
        if not self.running or self.total is None or self.first_end_s is None or self.done < 2:
            return None
        last_end_s: float = self.step.get("end_s", 0.0)
        return (self.total - self.done) * (last_end_s - self.first_end_s) / (self.done - 1)

    @property
    def cell(self) -> str | None:
        """The planned cell that a benchmark is at; None where it has none left, as in a search."""
        return next((key for key in self._plan if key not in self.cells), None) if self.running and not self.gone else None

    @property
    def since_cell_s(self) -> float:
        """Since the last cell ended, or the run began."""
        return max(0.0, self.age_s - self.cell_end_s)

    @property
    def output_tokens_per_s(self) -> float | None:
        """Output tokens per second of the last 30 s before the newest; of an answer that began earlier, the share that fell into them."""
        if not self._tokens:
            return None
        last = max(end_s for _, end_s, _ in self._tokens)
        begin = max(last - RECENT_S, min(start_s for start_s, _, _ in self._tokens))
        shares = (tokens * (end_s - max(start_s, begin)) / (end_s - start_s) for start_s, end_s, tokens in self._tokens if end_s > begin)
        return sum(shares) / (last - begin) if last > begin else None

    @property
    def silent_s(self) -> float:
        """Since something was written in its folder."""
        newest = 0.0
        with suppress(OSError):  # the folder has been moved away
            for path in self.folder.iterdir():
                with suppress(OSError):  # replaced at this moment
                    newest = max(newest, path.stat().st_mtime)
        return max(0.0, time.time() - newest)

    @property
    def gone(self) -> bool:
        """Whether it says it runs, and does not: it takes samples, and none has come for long."""
        return self.running and bool(self.sample) and self.silent_s > self.patience_s

    @property
    def patience_s(self) -> float:
        """How long samples may be absent; for ever where none are taken."""
        hz = self.spec.telemetry.sample_hz if self.spec else 0.0
        return max(SILENT_S, 10 / hz) if hz > 0 else math.inf

    def log(self, lines: int) -> list[str]:
        """Return the last lines of log.txt."""
        return last_lines(self.folder / "log.txt", lines)


def _spec(folder: Path) -> TrainSpec | BenchSpec | None:
    """Return the run's spec; None when this version can't read it, which costs no more than the totals."""
    with suppress(SpecError):
        return load_spec(folder / "spec.yaml", TrainSpec)
    with suppress(SpecError):
        return load_spec(folder / "spec.yaml", BenchSpec)
    return None


def _total(spec: TrainSpec | BenchSpec | None) -> int | None:
    if isinstance(spec, BenchSpec):
        return total(spec)
    return spec.train.max_steps if spec else None


def _planned_nodes(folder: Path) -> int | None:
    """Return on how many nodes a run was started; None where that isn't on record."""
    with suppress(OSError, ValueError):
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        nodes = environment.get("nodes") if isinstance(environment, dict) else None
        return nodes if isinstance(nodes, int) else None
    return None
