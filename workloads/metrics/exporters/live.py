"""While a run lives: its metrics at a port for Prometheus to scrape, and pushed every few seconds, from a process beside it.

It reads the run directory alone, what is new of it, so the run waits for nothing here.

    with live(run_dir, telemetry): train()      # on a node after the first: live(its_dir, telemetry, node=1)
    python -m workloads.metrics.exporters.live runs/demo --port 9101
"""

import argparse
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from ncdemo.spec.base import SpecError
from ncdemo.spec.common import Telemetry
from ncdemo.spec.follow import RunState
from ncdemo.spec.job import NCDEMO_PUSHGATEWAY
from ncdemo.spec.paths import runs_dir
from workloads.metrics.companion import Companion
from workloads.metrics.exporters.azure_monitor import AUTHS, Auth, AzureMonitor, connection_string
from workloads.metrics.exporters.azure_spool import Batches
from workloads.metrics.exporters.export import instance, push, resolve_gateway, spool_dir
from workloads.metrics.exporters.gateway import Gateway, Refused
from workloads.metrics.exporters.page import OtherNode, groups
from workloads.metrics.exporters.spool import Spool

if TYPE_CHECKING:
    from prometheus_client import Metric

LOG = logging.getLogger("workloads.metrics.exporters.live")
LAST_S = 0.6
"""For a node's last push, of the time in which it must end."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def live(folder: Path, telemetry: Telemetry, node: int = 0) -> AbstractContextManager[object]:
    """Return what exports a run while it is open, as its spec says; what does nothing when that is nothing."""
    arguments = [str(folder.absolute()), "--host", telemetry.metrics_host, "--every-s", str(telemetry.push_every_s)]
    if telemetry.metrics_port:
        arguments += ["--port", str(telemetry.metrics_port)]
    if node:
        arguments += ["--node", str(node)]
    if url := resolve_gateway(telemetry.pushgateway):
        arguments += ["--push"]
    if telemetry.azure_monitor:
        arguments += ["--azure-monitor", telemetry.azure_monitor]
    if not (telemetry.metrics_port or url or telemetry.azure_monitor):
        return nullcontext()
    return Companion(
        "workloads.metrics.exporters.live",
        arguments,
        name="the metrics exporter",
        about=folder,
        lacking="no live metrics",
        late="nothing of the run is lost by that",
        rest="there were no live metrics after that",
        env={NCDEMO_PUSHGATEWAY: url or ""},  # no argument: it may hold a password
    )


class Page:
    """The metrics page of one run, made anew for each scrape."""

    def __init__(self, state: RunState | OtherNode) -> None:
        self._state, self._lock = state, threading.Lock()

    def text(self) -> str:
        """Return every group's series with the group's labels on them."""
        from prometheus_client import generate_latest

        with self._lock:
            self._state.update()
            return generate_latest(_Labelled(self._state)).decode()

    def push(self, spool: Spool, within_s: float) -> bool:
        """Return False when some of it had to be kept for later."""
        with self._lock:
            self._state.update()
            return push(self._state, spool, within_s, time.time())

    def keep(self, batches: Batches) -> None:
        with self._lock:
            self._state.update()
            batches.keep(self._state)


class _Labelled:
    def __init__(self, state: RunState | OtherNode) -> None:
        self._state = state

    def collect(self) -> "Iterator[Metric]":
        """Yield families, the groups' labels put on their samples; `job` and `instance` Prometheus adds itself."""
        merged: dict[str, Metric] = {}
        for group in groups(self._state, instance(self._state), time.time()):
            labels = {name: value for name, value in group.key.items() if name not in ("job", "instance")}
            for family in group.collect():
                family.samples = [sample._replace(labels={**labels, **sample.labels}) for sample in family.samples]
                if family.name in merged:
                    merged[family.name].samples += family.samples
                else:
                    merged[family.name] = family
        yield from merged.values()


def serve(page: Page, host: str, port: int) -> ThreadingHTTPServer:
    """Serve /metrics from threads of their own."""

    class Scrape(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.partition("?")[0] == "/metrics"
            body = page.text().encode() if known else b"see /metrics\n"
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((host, port), Scrape)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workloads.metrics.exporters.live", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="serve /metrics here (default: don't)")
    parser.add_argument("--push", action="store_true", help=f"push to {NCDEMO_PUSHGATEWAY}")
    parser.add_argument("--azure-monitor", choices=AUTHS, help="send to Azure Monitor, as an identity or with the key")
    parser.add_argument("--node", type=int, default=0, help="the folder is that of a node after the first, with this rank")
    parser.add_argument("--every-s", type=float, default=15.0, help="between two pushes (default: 15)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with contextlib.suppress(OSError):
        os.nice(10)
    try:
        page = Page(OtherNode(args.run, args.node) if args.node else RunState(args.run))
        url = resolve_gateway("default") if args.push else None
        targets = [_gateway(page, Spool(spool_dir(), Gateway(url)))] if url else []
        if args.port:
            serve(page, args.host, args.port)
    except (SpecError, OSError) as error:
        sys.exit(f"metrics exporter: {args.host}:{args.port}: {error}" if isinstance(error, OSError) else f"Error: {error}")
    if args.azure_monitor:
        try:
            targets.append(_azure(page, connection_string(), args.azure_monitor))
        except SpecError as error:  # the others go on
            LOG.warning("Error: %s; nothing goes to Azure Monitor", error)
    for target in targets:
        threading.Thread(target=_push_for_ever, args=(target, args.every_s), daemon=True).start()
    with contextlib.suppress(OSError):
        os.read(sys.stdin.fileno(), 1)  # told to end, or the run's end of it has closed
    if args.node:
        _last(targets)
    logging.shutdown()
    os._exit(0)  # a push that hangs is not waited for: the run itself pushes its end


Target = Callable[[float], object]
"""Pushes once, within so many seconds."""


def _gateway(page: Page, spool: Spool) -> Target:
    def push_once(within_s: float) -> None:
        if page.push(spool, within_s):
            spool.send(within_s)  # what waits of other runs

    return push_once


def _azure(page: Page, connection: str, auth: Auth) -> Target:
    sender, batches = AzureMonitor(connection, auth), Batches(runs_dir(), connection)

    def push_once(within_s: float) -> None:
        page.keep(batches)
        batches.send(sender, within_s)

    return push_once


def _last(targets: list[Target]) -> None:
    """Push once more: nobody else tells of a node's end, and often an XID is it."""

    def push_last(target: Target) -> None:
        with contextlib.suppress(Exception):
            target(LAST_S)

    threads = [threading.Thread(target=push_last, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    until = time.monotonic() + LAST_S
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _push_for_ever(target: Target, every_s: float) -> None:
    said = ""
    while True:
        try:
            target(every_s / 2)
            said = ""
        except Refused as error:
            LOG.warning("%s; the run pushes no more there while it runs", error)
            return
        except Exception as error:  # a full disk under the spool, a record cut in two: the next push may go
            words = f"{type(error).__name__}: {error}"
            if words != said:
                LOG.warning("%s: metrics were not pushed (%s); trying again every %g s", runs_dir(), words, every_s)
            said = words
        threading.Event().wait(every_s)


if __name__ == "__main__":
    main()
