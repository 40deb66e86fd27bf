"""The container's role `exporter`: the figures of the job beside it, at a port for Prometheus, until it is told to end.

    python -m workloads.entrypoint exporter --spec /etc/ncdemo/run.yaml --port 9101

The job is the one that the spec and NCDEMO_JOB name. It shares the job's runs folder, reads there alone, and waits for the run to
begin, so either container may start first.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from ncdemo.spec.base import SpecError
from ncdemo.spec.follow import RunState
from ncdemo.spec.job import EXIT_BAD_SPEC, EXIT_DONE, EXIT_FAILED, SPEC_FILE, Node, job_name, load_run
from ncdemo.spec.paths import runs_dir
from ncdemo.spec.run_folder import node_folder
from workloads.metrics.exporters.live import Page, serve
from workloads.metrics.exporters.page import OtherNode

LOG = logging.getLogger("ncdemo.job")
POLL_S = 0.5


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workloads.entrypoint exporter", description=__doc__.splitlines()[0])
    parser.add_argument("--spec", type=Path, default=Path(SPEC_FILE), help=f"the job's resolved spec (default: {SPEC_FILE})")
    parser.add_argument("--host", default="0.0.0.0", help="address to serve at, without a password (default: 0.0.0.0)")
    parser.add_argument("--port", type=int, default=9101, help="default: 9101")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        rank = Node.of(os.environ).rank
        folder = node_folder(runs_dir().absolute() / job_name(load_run(args.spec), os.environ), rank)
        LOG.info("role exporter: %s at http://%s:%d/metrics, once it has begun", folder, args.host, args.port)
        while not (folder / ("spec.yaml" if rank else "result.json")).is_file():
            if ended.wait(POLL_S):
                return EXIT_DONE
        serve(Page(OtherNode(folder, rank) if rank else RunState(folder)), args.host, args.port)
    except SpecError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return EXIT_BAD_SPEC
    except OSError as error:
        print(f"Error: --port {args.port}: {error.strerror}; give another --port or --host", file=sys.stderr)
        return EXIT_FAILED
    ended.wait()
    return EXIT_DONE
