"""Who is loaded: subjects are started when a cell needs them and kept as long as the sweep's order allows.

A subject that could not load is not tried again. One that died or hung is started anew for its next cell, and given up when that
happens in two cells running. So is one that failed its warm-up. One whose engine failed in a cell, or had too little memory for
it, is started anew too, as often as need be: it may hold what it had begun, and other cells ask for less.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Literal

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.common import Precision
from ncdemo.spec.record import Record
from ncdemo.spec.result_bench import Client
from ncdemo.spec.result_engine import EngineCounts
from ncdemo.spec.run_folder import LOG_FILE
from ncdemo.spec.sweep import PlannedCell, SubjectKey
from ncdemo.spec.traffic import Load
from workloads.data.models import model_path
from workloads.inference.asked import Asked, params
from workloads.inference.frameworks.base import Answer, Settings
from workloads.inference.load.ceiling import ceiling
from workloads.inference.served import ClientOptions, Served
from workloads.inference.servers.watch import EngineLines
from workloads.inference.servers.words import LastWords
from workloads.inference.subject import Failed, Subject, Worker

log = logging.getLogger("ncdemo.bench")
DEATHS = 2
TELL_S = 0.5
DEAD = ("engine_died", "engine_hung")


class Stage:
    """The loaded subjects of one sweep; `with` ends them all."""

    def __init__(
        self,
        spec: BenchSpec,
        folder: Path,
        append: Callable[[str, Record], None],
        zero_ns: int,
        on_progress: Callable[[int, int], None],
        on_wait: Callable[[str, float, str | None], None],
    ) -> None:
        """`folder` is the run directory, where servers leave their logs; `append` writes their own figures there; `zero_ns` its clock's zero.

        `on_progress` gets, twice a second, how many requests of the cell have ended, and of how many; `on_wait`, while a subject
        is loaded and warmed up, what goes on, for how many seconds, and the last line of the engine's log.
        """
        self._spec, self._folder, self._append, self._zero_ns, self._on_progress = spec, folder, append, zero_ns, on_progress
        self._on_wait = on_wait
        self._open: dict[SubjectKey, tuple[Subject, ExitStack]] = {}
        self._given_up: dict[SubjectKey, Failed] = {}
        self._deaths: dict[SubjectKey, int] = {}
        self._never_ready: set[SubjectKey] = set()
        self.load_time_s: dict[str, float] = {}

    def given_up(self, key: SubjectKey) -> bool:
        return key in self._given_up

    def measure(self, cell: PlannedCell, what: Asked, *, again: bool = False) -> list[Answer] | Failed:
        """Give one cell to its subject, started if need be. Return the answers, or why there are none.

        `again`: the same cell's second try, which is no second cell in which the subject dies.
        """
        key = cell.subject
        if key in self._given_up:
            return self._given_up[key]
        subject = self.get(key, what)
        ready = subject.failed is None
        with ticking(TELL_S, lambda: self._on_progress(subject.ended, len(what.prompts))):
            answers = subject.failed or subject.measure(what, cell.load, params(self._spec, cell.load, what.max_new_tokens, cell.repeat))
        if not isinstance(answers, Failed):
            self._deaths[key] = 0
        if subject.failed:
            self._end(key)
            died = not ready or subject.failed.kind in DEAD
            self._deaths[key] = max(self._deaths.get(key, 0), int(died)) if again else self._deaths.get(key, 0) + died
            if key in self._never_ready or self._deaths[key] >= DEATHS:
                self._given_up[key] = subject.failed
        return answers

    def load(self, keys: Iterable[SubjectKey], what: Asked) -> None:
        """Load subjects that are not given up."""
        for key in dict.fromkeys(keys):
            if key not in self._given_up:
                self.get(key, what)

    def get(self, key: SubjectKey, what: Asked) -> Subject:
        """Return a subject, loaded and warmed up, whatever came of that. What can't stay beside it is ended first."""
        if key not in self._open:
            for other in [k for k in self._open if k.model != key.model or not self._spec.side_by_side]:
                self._end(other)
            stack = ExitStack()
            with self._waiting("loading", key):
                subject = stack.enter_context(self._start(key))
            self._open[key] = subject, stack
            if subject.failed:
                self._never_ready.add(key)
            if subject.load_time_s is not None:
                self.load_time_s[key.shown] = subject.load_time_s
            ready = "is there" if subject.load_time_s is None else f"ready after {subject.load_time_s:.1f} s"
            log.info("%s: %s", key.shown, subject.failed.reason if subject.failed else ready)
            if self._spec.warmup_requests and not subject.failed:
                load = Load(kind="closed", concurrency=min(self._spec.max_concurrency, self._spec.warmup_requests))
                with self._waiting("warming up", key):
                    subject.measure(what.before(self._spec.warmup_requests), load, params(self._spec, load, what.max_new_tokens))
        return self._open[key][0]

    def client(self, key: SubjectKey) -> Client | None:
        """Return what the load generator did in a subject's last cell."""
        return self._open[key][0].client if key in self._open else None

    def counted(self, key: SubjectKey) -> EngineCounts | None:
        """Return what a subject's engine says of its last cell."""
        return self._open[key][0].counted if key in self._open else None

    def prefix_cache(self, key: SubjectKey) -> str:
        return self._open[key][0].prefix_cache if key in self._open else "unknown"

    @contextmanager
    def _waiting(self, what: str, key: SubjectKey) -> Iterator[None]:
        """Tell twice a second what goes on. A server has a log of its own; an engine in a process of ours writes into the run's."""
        log_file = self._server_folder(key) / "server.log" if self._spec.mode == "server" else self._folder / LOG_FILE
        words, began = LastWords(log_file, self._spec.args_of(key.engine)), time.perf_counter()
        with ticking(TELL_S, lambda: self._on_wait(f"{what} {key.shown}", time.perf_counter() - began, words.now())):
            yield

    def _server_folder(self, key: SubjectKey) -> Path:
        return self._folder / "servers" / folder_name(key)

    def _start(self, key: SubjectKey) -> Subject:
        spec = self._spec
        settings = Settings(
            precision(key.precision), spec.max_model_len, spec.memory_fraction, spec.max_concurrency,
            tensor_parallel_size=key.tensor_parallel, prefix_cache=spec.prefix_cache, endpoint_url=spec.url or "", endpoint=spec.endpoint,
            server_args=spec.args_of(key.engine),
        )  # fmt: skip
        if spec.mode == "offline":
            return Worker(key.engine, model_path(key.model), settings, spec.request_timeout_s)
        # Before any server works beside it; measured once per machine and run.
        top = ceiling(self._folder / "client-ceiling.json")
        path = key.model.shown if key.engine == "openai" else model_path(key.model)
        lines = EngineLines(self._append, self._zero_ns, engine=key.engine, model=key.model.shown, variant=key.variant)
        client = ClientOptions(top, spec.client_processes)
        return Served(
            key.engine, path, settings, self._server_folder(key), client, lines, spec.engine_metrics_every_s, spec.request_timeout_s
        )

    def _end(self, key: SubjectKey) -> None:
        _, stack = self._open.pop(key)
        stack.close()

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._open):
            self._end(key)


@contextmanager
def ticking(every_s: float, tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` every so often in a thread of this process, which measures nothing itself; never after the body."""
    over = Event()

    def run() -> None:
        while not over.wait(every_s):
            tick()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def folder_name(key: SubjectKey) -> str:
    """Return a subject's folder below servers/."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{key.engine}-{Path(key.model.shown).name}-{key.precision}-tp{key.tensor_parallel}")


def precision(asked_for: Precision) -> Literal["fp32", "bf16"]:
    """Return the number format that runs."""
    if asked_for == "fp32" or asked_for == "bf16":
        return asked_for
    import torch

    return "bf16" if torch.cuda.is_available() else "fp32"
