"""How a run ended, to where its spec says: a Pushgateway, Azure Monitor. It raises nothing, and takes seconds when the run is stopped.

push_end(Path("runs/demo"), spec.telemetry)
"""

import logging
import subprocess
import sys
from functools import partial
from pathlib import Path

from ncdemo.spec.common import Telemetry
from ncdemo.spec.follow import RunState
from ncdemo.spec.paths import runs_dir
from workloads.metrics.companion import child_env
from workloads.metrics.exporters.azure_monitor import connection_string
from workloads.metrics.exporters.azure_spool import Batches
from workloads.metrics.exporters.export import export_run, resolve_gateway, spool_dir
from workloads.metrics.exporters.gateway import Gateway

LOG = logging.getLogger(__name__)
GATEWAY_S, AZURE_S, AZURE_SEND_S = 2.0, 5.0, 3.0
"""A run that is being stopped has 25 s for everything. Azure's exporter takes a second or two to be imported."""
AZURE_FINISHED_S = 60.0
"""Of a run that has the time: a busy machine imports slowly."""


def push_end(folder: Path, telemetry: Telemetry, *, finished: bool = False) -> None:
    """Send how a run ended; what fails is said, and waits on disk."""
    for send in (_to_gateway, partial(_to_azure, timeout_s=AZURE_FINISHED_S if finished else AZURE_S)):
        try:
            send(folder, telemetry)
        except Exception as error:  # a run that is done must not fail for its metrics
            LOG.warning("%s: metrics were not pushed (%s)", folder, str(error) or type(error).__name__)


def _to_gateway(folder: Path, telemetry: Telemetry) -> None:
    url = resolve_gateway(telemetry.pushgateway)
    if url and not export_run(folder, url, within_s=GATEWAY_S):
        LOG.warning("%s does not answer: the run's metrics wait in %s; send them later with: ncdemo metrics send",
                    Gateway(url).shown, spool_dir())  # fmt: skip


def _to_azure(folder: Path, telemetry: Telemetry, timeout_s: float) -> None:
    """Write it down here, and send it from a process of its own, which can be ended."""
    if (auth := telemetry.azure_monitor) is None:
        return
    batches, state = Batches(runs_dir(), connection_string()), RunState(folder)
    state.update()
    batches.keep(state)
    command = [sys.executable, "-P", "-m", "workloads.metrics.exporters", "send", "--azure-monitor", auth, "--within-s", str(AZURE_SEND_S)]
    try:
        done = subprocess.run(command, env=child_env(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
        why = (
            ""
            if done.returncode == 0
            else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].partition(": kept in ")[0]
        )
    except subprocess.TimeoutExpired:
        why = f"it took longer than {timeout_s:g} s"
    if why:
        LOG.warning("%s: metrics for Azure Monitor wait in %s (%s); send them later with: ncdemo metrics send --azure-monitor %s",
                    folder, batches.folder, why, auth)  # fmt: skip
