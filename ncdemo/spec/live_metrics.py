"""Which jobs of a stack Prometheus scrapes while they run, and why another that serves its metrics isn't.

scraped_port(stack.spec, stack.jobs[0].run)
"""

import ipaddress

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.stack import StackSpec
from ncdemo.spec.train import TrainSpec


def scraped_port(spec: StackSpec, run: TrainSpec | BenchSpec) -> int | None:
    """Return the port of a job's pods that is scraped; None where none is."""
    return run.telemetry.metrics_port if scrapers(spec) and unscraped(spec, run) is None else None


def scrapers(spec: StackSpec) -> list[str]:
    """Return the keys of monitoring that bring a Prometheus to this stack's pods."""
    found = {"in_cluster": spec.target != "vm", "azure_monitor": spec.target == "aks"}
    return [key for key, here in found.items() if here and getattr(spec.monitoring, key)]


def unscraped(spec: StackSpec, run: TrainSpec | BenchSpec) -> str | None:
    """Return why a run that serves its metrics isn't scraped where a Prometheus is, and what to do; None where it is, or serves none."""
    telemetry = run.telemetry
    if telemetry.metrics_port is None or not scrapers(spec):
        return None
    if _loopback(telemetry.metrics_host):
        return f"served at {telemetry.metrics_host} alone, where Prometheus isn't; set telemetry.metrics_host: 0.0.0.0"
    if spec.monitoring.in_cluster and telemetry.pushgateway is not None:
        return "not scraped, as the job pushes the same figures; to have it scraped instead, set telemetry.pushgateway: null"
    return None


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
