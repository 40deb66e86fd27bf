"""A load from plan to answers, by one process or several, with one start for all and nothing lost between them.

    result = run(Plan(target, requests, closed(64)))    # result.answers, result.report

The processes are our own children (process.py): the harness's threads, its telemetry and its progress bar then share no
interpreter lock with the clock. One that dies is told as failures of its requests.
"""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from workloads.inference.frameworks.base import Answer
from workloads.inference.load import failures
from workloads.inference.load.plan import LoadResult, Plan, Report
from workloads.inference.load.schedule import Closed
from workloads.inference.load.share import START, Cost, Share

START_DELAY_NS = 20_000_000
"""From telling the start to the start: all processes must have heard it."""
CONNECTIONS_AHEAD = 256
"""Of an open load, unless the plan says otherwise."""


def run(plan: Plan, on_progress: Callable[[int], None] | None = None) -> LoadResult:
    """Send a plan's requests and return one answer for each. on_progress gets the number of ended requests now and then."""
    workers = [_Worker(share) for share in shares(plan)]
    try:
        for worker in workers:
            worker.prepare()
        start_ns = time.perf_counter_ns() + START_DELAY_NS
        with ThreadPoolExecutor(len(workers)) as pool:
            list(pool.map(lambda worker: worker.work(start_ns, lambda: _progress(workers, on_progress)), workers))
    finally:
        for worker in workers:
            worker.end()
    answers = sorted((a for worker in workers for a in worker.told(start_ns)), key=lambda a: a.index)
    return LoadResult(answers, _report(workers, answers))


def shares(plan: Plan) -> list[Share]:
    """Deal a plan's requests, and the slots of a closed loop, out to its processes."""
    count = len(plan.requests)
    slots = min(plan.schedule.concurrency, count) if isinstance(plan.schedule, Closed) else count
    processes = min(plan.processes, slots)
    cores = sorted(os.sched_getaffinity(0))
    ahead = plan.connections or (slots if isinstance(plan.schedule, Closed) else min(count, CONNECTIONS_AHEAD))
    dealt = []
    for p in range(processes):
        mine = [i for i in range(count) if i % slots % processes == p]
        share = Share(
            target=plan.target,
            requests=[plan.requests[i] for i in mine],
            due_ns=None if isinstance(plan.schedule, Closed) else [round(plan.schedule.offsets_s[i] * 1e9) for i in mine],
            concurrency=len(range(p, slots, processes)),
            connections=len(range(p, ahead, processes)),
            core=cores[p] if 1 < processes <= len(cores) else None,
            parent=os.getpid(),
        )
        dealt.append(share)
    return dealt


@dataclass
class _Worker:
    """One child process and what it told."""

    share: Share
    done: int = 0
    answers: list[Answer] | None = None
    cost: Cost | None = None
    why: str = ""
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "workloads.inference.load.process"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def prepare(self) -> None:
        """Hand over the share and wait until the process is ready."""
        with suppress(BrokenPipeError):
            pickle.dump(self.share, self._stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self._stdin.flush()
        self._hear()

    def work(self, start_ns: int, on_progress: Callable[[], None]) -> None:
        """Tell the start and take what the process says until its answers are there, or it died."""
        with suppress(BrokenPipeError):
            self._stdin.write(START.pack(start_ns))
            self._stdin.flush()
        while self.answers is None and not self.why:
            self._hear()
            on_progress()

    def _hear(self) -> None:
        assert self.process.stdout
        try:
            kind, value = pickle.load(self.process.stdout)
        except (EOFError, pickle.UnpicklingError):
            self.why = f"the load generator's process ended (exit {self.process.wait()}) before it told; its last words are on stderr"
            return
        if kind == "done":
            self.done = value
        elif kind == "answers":
            self.answers, self.cost = value
            self.done = len(self.share.requests)

    def told(self, start_ns: int) -> list[Answer]:
        """Return the answers, or a failure for each request of a process that died. When those were sent nobody knows."""
        if self.answers is not None:
            return self.answers
        due = [start_ns + offset for offset in self.share.due_ns or [0] * len(self.share.requests)]
        pairs = zip(self.share.requests, due, strict=True)
        return [Answer(r.index, ns, ns, error=self.why, failure=failures.CLIENT_DIED) for r, ns in pairs]

    def end(self) -> None:
        assert self.process.stdout
        if self.answers is None:
            self.process.kill()
        with suppress(BrokenPipeError):
            self._stdin.close()
        self.process.stdout.close()
        self.process.wait()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self.process.stdin
        return self.process.stdin


def _progress(workers: list[_Worker], on_progress: Callable[[int], None] | None) -> None:
    if on_progress is not None:
        on_progress(sum(worker.done for worker in workers))


def _report(workers: list[_Worker], answers: list[Answer]) -> Report:
    costs = [worker.cost for worker in workers if worker.cost is not None]
    return Report(
        processes=len(workers),
        window_s=max((c.window_s for c in costs), default=0.0),
        cpu_window_s=sum(c.cpu_window_s for c in costs),
        cpu_parse_s=sum(c.cpu_parse_s for c in costs),
        busiest_cpu_share=max((c.cpu_window_s / c.window_s for c in costs), default=0.0),
        events=sum(c.events for c in costs),
        reads=sum(c.reads for c in costs),
        max_lateness_s=max((a.sent_ns - a.scheduled_ns for a in answers), default=0) / 1e9,
        connections_opened=sum(c.opened for c in costs),
        connections_opened_in_window=sum(c.opened_in_window for c in costs),
        died=len(workers) - len(costs),
        hung=sum(c.hung for c in costs),
    )
