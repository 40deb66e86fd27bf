"""A Prometheus Pushgateway over HTTP: put a group, delete one, list what is there; again with growing pauses while it is down.

Gateway("http://127.0.0.1:9091").send("PUT", {"job": "ncdemo", "run": "demo-1"}, text, within_s=10)
"""

import base64
import functools
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ncdemo.spec.base import SpecError
from workloads.metrics.redact import redact

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
REQUEST_S = 5.0
T = TypeVar("T")
Method = Literal["PUT", "DELETE"]


class Unreachable(Exception):
    """The gateway did not answer, or said that it can't now."""


class Refused(SpecError):
    """The gateway answered that it never will take this."""


@dataclass(frozen=True)
class Pushed:
    """A group that a gateway holds."""

    labels: dict[str, str]
    """Its key: every label that all its series have."""
    at_s: float
    """When it was last pushed, by the gateway's clock, since 1970."""
    running: bool
    """It says that its run is under way."""


class Gateway:
    def __init__(self, url: str) -> None:
        if not re.match(r"https?://[^/\s]+", url):
            raise SpecError(f"pushgateway = {redact(url)!r}: must be an address such as http://127.0.0.1:9091")
        self._url = url.rstrip("/")
        self.shown = redact(self._url)

    def send(self, method: Method, key: Mapping[str, str], body: str = "", within_s: float = 10.0) -> None:
        """Put or delete one group; a put replaces the whole group, so repeating it changes nothing.

        Raise Unreachable when no answer came within the time, Refused when the answer is no.
        """
        again(lambda left_s: self._ask(method, group_path(key), body, min(REQUEST_S, left_s)), within_s)

    def groups(self) -> list[Pushed]:
        """Return each group, from two metrics of the gateway's page: its JSON of all of them takes several times as long."""
        from prometheus_client.parser import text_string_to_metric_families

        page = self._ask("GET", "/metrics", "", REQUEST_S).text
        # Most lines say of a status that it is not the run's: reading them all would take longer than the gateway takes.
        lines = [line for line in page.splitlines() if line.startswith("push_time_seconds{") or _says_running(line)]
        series = [one for family in text_string_to_metric_families("\n".join(lines) + "\n") for one in family.samples]
        pushed = [one for one in series if one.name == "push_time_seconds"]
        running = [
            {name: value for name, value in one.labels.items() if name != "status"} for one in series if one.name != "push_time_seconds"
        ]
        return [Pushed(one.labels, one.value, one.labels in running) for one in pushed]

    def _ask(self, method: str, path: str, body: str, timeout_s: float) -> Any:
        import httpx

        try:
            answer = _client().request(method, self._url + path, content=body.encode(), timeout=timeout_s)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.shown} does not answer ({redact(str(error)) or type(error).__name__})") from None
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Unreachable(f"{self.shown} answers {answer.status_code}")
        if answer.status_code >= 300:
            raise Refused(f"{self.shown} refuses {method} {path}: {answer.status_code} {' '.join(answer.text.split())[:300]}; see its log")
        return answer


def again(act: Callable[[float], T], within_s: float) -> T:
    """Call `act` with the seconds that are left, again with growing pauses while it raises Unreachable; raise it when none are."""
    end_s, pause_s = time.monotonic() + within_s, FIRST_PAUSE_S
    while True:
        try:
            return act(max(0.1, end_s - time.monotonic()))
        except Unreachable:
            # Half of each pause is chance, so that many runs don't return in step.
            pause = pause_s * random.uniform(0.5, 1)
            if time.monotonic() + pause >= end_s:
                raise
            time.sleep(pause)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _says_running(line: str) -> bool:
    return line.startswith("ncdemo_run_status{") and 'status="running"' in line and not line.endswith(" 0")


@functools.cache
def _client() -> Any:
    """Return what keeps connections for the next push; made once, as reading whom to trust takes 30 ms."""
    import httpx

    return httpx.Client(verify=ssl.create_default_context())


def group_path(key: Mapping[str, str]) -> str:
    """Return the path of a group; `job` comes first. Values that a path can't hold are in base64, as the gateway reads it."""
    parts = [_part("job", key["job"]), *(_part(name, value) for name, value in sorted(key.items()) if name != "job")]
    return "/metrics/" + "/".join(parts)


def _part(name: str, value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", value):
        return f"{name}/{value}"
    return f"{name}@base64/{base64.urlsafe_b64encode(value.encode()).decode() or '='}"
