"""Azure Monitor, through Microsoft's OpenTelemetry exporter (the extra `azure-monitor`): the same figures that a Pushgateway gets.

The resource is what APPLICATIONINSIGHTS_CONNECTION_STRING says; `identity` signs in with the machine's Azure identity (role
Monitoring Metrics Publisher), `key` with the connection string alone.

    AzureMonitor(connection_string(), "identity").send(batch)
"""

import importlib.util
import json
import logging
import os
import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import APPLICATIONINSIGHTS_CONNECTION_STRING as VARIABLE
from workloads.metrics.exporters.azure_spool import Batch
from workloads.metrics.exporters.gateway import Refused, Unreachable
from workloads.metrics.exporters.names import NAMES
from workloads.metrics.redact import redact

Auth = Literal["identity", "key"]
AUTHS: tuple[Auth, ...] = ("identity", "key")
SCOPE = "ncdemo"
FORM = re.compile(r"(?=(?:.*;)?(?i:instrumentationkey)=[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(;|$))[^=;\s]+=[^=;]*(;[^=;\s]+=[^=;]*)*")
"""Of a connection string, as Microsoft's exporter takes it: the key is a UUID in lower case."""
GLOBAL_ENDPOINT = "https://dc.services.visualstudio.com"
"""What Microsoft's exporter takes where the connection string names none."""
LATER = {401, 402, 403, 408, 429, 439}
"""Statuses that pass, beside those from 500 on: sign-in and quota can be mended, the point is as good as before."""
OFF = (
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
    "APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
)
"""What the exporter would tell its makers, or ask them, beside the points."""


def connection_string() -> str:
    """Return the environment's. Raise SpecError when there is none, or what sends is not installed."""
    if not (found := os.environ.get(VARIABLE, "").strip().rstrip(";")):
        raise SpecError(f"{VARIABLE} is not set; copy it from the overview of your Application Insights resource")
    if not FORM.fullmatch(found):
        raise SpecError(
            f"{VARIABLE}: is no connection string; set it to one of the form InstrumentationKey=<uuid>;IngestionEndpoint=https://..."
        )
    try:
        installed = importlib.util.find_spec("azure.monitor.opentelemetry.exporter") is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        raise SpecError(
            "Azure Monitor's exporter isn't installed; run scripts/setup_env.sh --extra azure-monitor, beside the extras you have"
        )
    return found


def endpoint(connection: str) -> str:
    """Return where a connection string sends to, without a password."""
    found = re.search(r"(?:^|;)\s*IngestionEndpoint=([^;\s]+)", connection, re.IGNORECASE)
    return redact(found[1].rstrip("/")) if found else GLOBAL_ENDPOINT


@dataclass
class Answer:
    """What came back last; status 0: nothing."""

    status: int = 0
    text: str = ""
    retry_after_s: float = 0.0

    def note(self, response: Any) -> None:
        """Take it from azure-core's pipeline."""
        http = response.http_response
        after = http.headers.get("Retry-After", "")
        self.status, self.text, self.retry_after_s = http.status_code, http.text(), float(after) if re.fullmatch(r"\d+", after) else 0.0


class Credential:
    """An Azure identity that remembers why it gave no token."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.why = inner, ""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        self.why = ""
        try:
            return self._inner.get_token(*scopes, **options)
        except Exception as error:
            self.why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise


class AzureMonitor:
    """Sends batches to one resource, each once: who calls decides when to try again."""

    def __init__(self, connection: str, auth: Auth) -> None:
        """`connection`: as `connection_string` returns it."""
        os.environ.update(dict.fromkeys(OFF, "true"))  # before the import, which reads some of them
        from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter

        # Its words may quote a batch with the key in it; ours say what happened.
        logging.getLogger("azure").setLevel(logging.CRITICAL + 1)
        self.shown = f"Azure Monitor ({endpoint(connection)})"
        self._answer, self._not_before_s = Answer(), 0.0
        self._credential = _identity() if auth == "identity" else None
        # One try, within seconds, and nothing on disk that we did not write: the pauses and the spool are ours.
        options = {"disable_offline_storage": True, "retry_total": 0, "timeout": 5.0, "read_timeout": 5.0}
        self._exporter = AzureMonitorMetricExporter(
            connection_string=connection, credential=self._credential, raw_response_hook=self._note, **options
        )

    def send(self, batch: Batch) -> list[int]:
        """Send a batch; return the indices of points that must go again (none: all are there, or will never be taken).

        Raise Unreachable when nothing of it was taken now, Refused when nothing of it ever will be.
        """
        if time.monotonic() < self._not_before_s:
            raise Unreachable(f"{self.shown} asked for a pause")
        self._answer = Answer()
        from opentelemetry.sdk.metrics.export import MetricExportResult

        result = self._exporter.export(_data(batch))
        answer = self._answer
        self._not_before_s = time.monotonic() + answer.retry_after_s
        if result == MetricExportResult.SUCCESS:
            return []
        if answer.status in (200, 206):
            return self._rest(answer.text)
        if answer.status == 0:
            why = self._credential and self._credential.why
            raise Unreachable(f"{self.shown}: {f'no token of an Azure identity ({why})' if why else 'does not answer'}")
        if answer.status in LATER or answer.status >= 500:
            raise Unreachable(f"{self.shown} answers {answer.status}")
        raise Refused(f"{self.shown} refuses the points: {answer.status}; check that the resource of {VARIABLE} is still there")

    def _rest(self, text: str) -> list[int]:
        errors = [(one["index"], one["statusCode"]) for one in json.loads(text).get("errors", ())]
        if lost := [status for _, status in errors if not _passes(status)]:
            logging.getLogger(__name__).warning("%s refuses %d points: %s", self.shown, len(lost), sorted(set(lost)))
        return [index for index, status in errors if _passes(status)]

    def _note(self, response: Any) -> None:
        self._answer.note(response)


def _passes(status: int) -> bool:
    return status in LATER or status >= 500


def _identity() -> Credential:
    from azure.identity import DefaultAzureCredential

    return Credential(DefaultAzureCredential())


def _data(batch: Batch) -> Any:
    """Return a batch as OpenTelemetry's SDK hands it to exporters: gauges, and sums since the run began for what only grows."""
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Metric,
        MetricsData,
        NumberDataPoint,
        ResourceMetrics,
        ScopeMetrics,
        Sum,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    at_ns = round(batch.time_s * 1e9)
    metrics = []
    for name, labels, value in batch.points:
        about = NAMES.get(name)
        points = [NumberDataPoint({**batch.key, **labels}, at_ns, at_ns, value)]
        grows = about is not None and about.kind == "counter"
        data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True) if grows else Gauge(points)
        metrics.append(Metric(name, about.help if about else None, None, data))
    scope = ScopeMetrics(InstrumentationScope(SCOPE), metrics, "")
    resource = Resource({"service.name": SCOPE, "service.instance.id": batch.key.get("instance", "")})
    return MetricsData([ResourceMetrics(resource, [scope], "")])
