"""An engine's own server as a sweep's subject (mode: server): started once for its parameters, loaded over HTTP cell after cell.

with Served("vllm", path, settings, folder, ClientOptions(top, "auto"), lines, every_s=5.0) as subject:
    answers = subject.measure(what, load, params)
"""

import logging
import math
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from ncdemo.spec.base import SpecError
from ncdemo.spec.result_bench import Client
from ncdemo.spec.result_engine import EngineCounts
from ncdemo.spec.traffic import Load
from workloads.inference.asked import Asked
from workloads.inference.frameworks import serve
from workloads.inference.frameworks.base import Answer, ModelMissing, Params, Serve, Settings
from workloads.inference.load import failures, schedule
from workloads.inference.load.ceiling import FLAGGED, Ceiling, headroom
from workloads.inference.load.plan import LoadResult, Plan, Report, Target, body, request
from workloads.inference.load.run import run
from workloads.inference.servers.command import write_command
from workloads.inference.servers.ports import PortTaken, free_port
from workloads.inference.servers.server import Server, ServerError, ServerHung
from workloads.inference.servers.watch import EngineLines, Watch
from workloads.inference.subject import START_S, Failed

log = logging.getLogger("ncdemo.server")
OUTSIDE_S = 10.0
"""How long a server of others may take to be healthy: it is there or it isn't."""
PORTS = 3
"""Ports that are tried: between asking for a free one and listening there another process may take it."""
TAKEN = "address already in use"
UNREACHED = {failures.CONNECT_REFUSED, failures.CONNECT_FAILED}


@dataclass(frozen=True)
class ClientOptions:
    """How the load generator works."""

    top: Ceiling
    """What one process of it can take on this machine."""
    processes: int | Literal["auto"]


class Served:
    """A server and what loads it; `with` ends it."""

    def __init__(self, engine: str, path: str, settings: Settings, folder: Path, client: ClientOptions, lines: EngineLines, every_s: float,
                 request_timeout_s: float) -> None:  # fmt: skip
        """`folder` gets the server's log and command, `lines` what it says of itself every `every_s`."""
        self.failed: Failed | None = None
        self.client: Client | None = None
        self.counted: EngineCounts | None = None
        self.ended = 0
        self._lines, self._every_s = lines, every_s
        self.load_time_s: float | None = None
        self.prefix_cache = "unknown"
        self._options, self._stack = client, ExitStack()
        self._outside = engine == "openai"
        try:
            how = self._start(engine, path, settings, folder)
        except ModelMissing as error:
            self.failed = Failed("model_missing", str(error))
        except (ServerError, PortTaken, OSError) as error:
            self.failed = Failed("load_failed", str(error))
        except SpecError as error:
            self.failed = Failed("engine_missing", str(error))
        else:
            self.load_time_s = self._server.start_time_s
            self.prefix_cache = "reset" if how.reset else how.prefix_cache
            self._target = Target(
                how.url, how.model, how.endpoint, api_key_env=how.api_key_env, timeout_s=request_timeout_s, fields=dict(how.fields)
            )

    def _start(self, engine: str, path: str, settings: Settings, folder: Path) -> Serve:
        """Start the server, on another port when the first is taken; return how it was started."""
        for last in (False,) * (PORTS - 1) + (True,):
            how = serve(engine, path, settings, free_port())
            server = Server(how, folder, start_timeout_s=OUTSIDE_S if self._outside else START_S)
            folder.mkdir(parents=True, exist_ok=True)
            write_command(folder, engine, server)  # before the start, so that a server that fails has said it too
            try:
                self._server = self._stack.enter_context(server)
                break
            except (ServerError, PortTaken) as error:
                if last or TAKEN not in str(error).lower():
                    raise
                log.info("%s: %s; another port is tried", engine, how.url)
        write_command(folder, engine, self._server, says=self._server.version())
        return how

    def measure(self, what: Asked, load: Load, params: Params) -> list[Answer] | Failed:
        """Return the answers, or why there are none; `client` and `counted` then say what the load generator and the engine did."""
        self.client = self.counted = None
        if self.failed:
            return self.failed
        try:
            asked = self._options.processes
            plan = Plan(self._target, self._requests(what, params), when(what, load, params.arrival_seed), 1 if asked == "auto" else asked)
            result = self._load(plan)
            # A cache that can't be emptied would answer the same prompts the second time, and a server that fails would fail again.
            again = asked == "auto" and self.prefix_cache in ("off", "reset") and not any(a.failure for a in result.answers)
            more = processes_needed(self.client, plan) if again else 1
            if self.client and more > 1:
                alone = self.client.headroom
                log.info("the client's one process was at %.0f %% of what it can do: once more with %d", (1 - (alone or 0)) * 100, more)
                result = self._load(replace(plan, processes=more))
                self.client = self.client.model_copy(update={"headroom_of_one": alone})
        except ServerError as error:
            self.failed = _lost(error)
            return self.failed
        except (SpecError, OSError) as error:
            return Failed("load_generator", str(error))
        return self._answers(result)

    def _load(self, plan: Plan) -> LoadResult:
        """Send a plan's requests to a server whose prefix cache is empty, and keep what the client and the engine did."""
        self.ended = 0
        self._server.reset_prefix_cache()
        with Watch(self._server, self._lines, self._every_s) as watch:
            result = run(plan, self._tell)
        stamps = [ns for answer in result.answers for ns in (answer.sent_ns, *answer.chunk_ns[-1:])]
        self.client, self.counted = _client(result.report, self._options.top), watch.counts(min(stamps), max(stamps))
        return result

    def _tell(self, ended: int) -> None:
        self.ended = ended

    def _answers(self, result: LoadResult) -> list[Answer] | Failed:
        """Return the answers; those of a server that died or hangs go with its failure."""
        self._hide_key(result.answers)
        if self._outside and all(a.failure in UNREACHED for a in result.answers):
            return Failed("engine_died", f"{self._target.url}: {result.answers[0].error}")
        try:
            if any(a.failure for a in result.answers):
                self._server.check_healthy()
            self._server.check_alive()
            if result.report.hung:
                raise ServerHung(f"request after request brought nothing in {self._target.timeout_s:g} s, so the cell was given up")
        except ServerError as error:
            self.failed = _lost(error)
            return replace(self.failed, answers=result.answers)
        for answer in result.answers:
            if self._outside and answer.http_status == 404 and self._target.endpoint == "completions":
                answer.error = f"{answer.error}; set endpoint: chat for an endpoint that has no /v1/completions"
            if answer.failure == failures.HTTP_4XX and "ignore_eos" in (answer.error or ""):
                answer.error = f"{answer.error}; this endpoint can't be made to give exact lengths: set sampling.ignore_eos: false"
        return result.answers

    def _hide_key(self, answers: list[Answer]) -> None:
        """Take the endpoint's key out of what it answered: some say which key they refused."""
        if key := os.environ.get(self._target.api_key_env or ""):
            for answer in answers:
                answer.error = answer.error and answer.error.replace(key, "***")
                answer.text = answer.text and answer.text.replace(key, "***")

    def _requests(self, what: Asked, params: Params) -> tuple[Any, ...]:
        chat = self._target.endpoint == "chat"
        asked = ({"messages": prompt.messages} if chat else {"prompt": prompt} for prompt in what.prompts)
        bodies = (body(self._target, replace(params, max_new_tokens=n), **one) for one, n in zip(asked, what.output_tokens, strict=True))
        return tuple(request(self._target, i, data) for i, data in enumerate(bodies))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def processes_needed(client: Client | None, plan: Plan) -> int:
    """Return how many processes a cell needs that one could not send with enough headroom; 1 when one could, or more can't help.

    Twice as many as its load asks for by what was seen, since a client at its limit hides how much more there was to do.
    """
    if client is None or client.headroom is None or client.headroom >= 1 - FLAGGED:
        return 1
    slots = plan.schedule.concurrency if isinstance(plan.schedule, schedule.Closed) else len(plan.requests)
    return max(1, min(len(os.sched_getaffinity(0)), slots, len(plan.requests), 2 * math.ceil((1 - client.headroom) / FLAGGED)))


def _lost(error: ServerError) -> Failed:
    """Return why a server that was started answers no more."""
    return Failed("engine_hung" if isinstance(error, ServerHung) else "engine_died", str(error))


def when(what: Asked, load: Load, seed: int) -> schedule.Closed | schedule.Open:
    """Return a load's times: the same for every engine, by the seed."""
    count = len(what.prompts)
    if what.offsets_s is not None and load.kind == "trace":
        return schedule.replay(what.offsets_s, load.scale or 1.0)
    if load.kind == "closed":
        return schedule.closed(load.concurrency or 1)
    assert load.rate_rps
    if load.kind == "constant":
        return schedule.constant(load.rate_rps, count)
    return schedule.gamma(load.rate_rps, load.burstiness or 1.0, count, seed)


def _client(report: Report, top: Ceiling) -> Client:
    return Client(
        processes=report.processes,
        cpu_share=report.busiest_cpu_share,
        events_per_s=report.events / report.window_s if report.window_s else 0.0,
        ceiling_events_per_s=top.events_per_cpu_s * report.processes,
        headroom=1 - headroom(report, top).used,
        max_lateness_s=report.max_lateness_s,
    )
