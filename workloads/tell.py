"""How a workload ended that was killed before it could say so, to gateways and MLflow, beside what else is to be done at a job's end.

telling = Telling(folder, spec.telemetry, within_s=10)
mirror.finish(stop)
telling.wait(stop, stop_s=25)
"""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ncdemo.spec.common import Telemetry
from ncdemo.spec.paths import runs_dir
from workloads.child import Stop
from workloads.metrics.exporters.end import push_end
from workloads.metrics.mlflow_log import log_run, resolve_uri

LOG = logging.getLogger("ncdemo.job")


class Telling:
    """Pushes the run's end and logs it to MLflow, each in a thread; what fails is said by them."""

    def __init__(self, folder: Path, telemetry: Telemetry, within_s: float) -> None:
        self._folder = folder
        sends: list[Callable[[], object]] = [partial(push_end, folder, telemetry)]
        if uri := resolve_uri(telemetry.mlflow_uri, runs_dir()):
            sends.append(partial(log_run, folder, uri, within_s))
        self._threads = [threading.Thread(target=send, name="tell", daemon=True) for send in sends]
        for thread in self._threads:
            thread.start()

    def wait(self, stop: Stop, stop_s: float) -> None:
        """Return once it is done; after a signal, stop_s from that at the latest."""
        while alive := [thread for thread in self._threads if thread.is_alive()]:
            if stop.at_once or (stop.since is not None and time.monotonic() > stop.since + stop_s):
                LOG.warning("%s: nobody heard in time how it ended; send it later with: ncdemo metrics export", self._folder)
                return
            alive[0].join(0.1)
