"""A Prometheus Pushgateway over HTTP: put a group, delete one, list what is there; again with growing pauses while it is down.

Gateway("http://127.0.0.1:9091").send("PUT", {"job": "ncdemo", "run": "demo-1"}, text, within_s=10)
"""

import base64
import functools
import random
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ncdemo.spec.base import SpecError
from workloads.metrics.redact import redact

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
REQUEST_S = 5.0
Method = Literal["PUT", "DELETE"]


class Unreachable(Exception):
    """The gateway did not answer, or said that it can't now."""


class Refused(SpecError):
    """The gateway answered that it never will take this."""


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
        end_s, pause_s = time.monotonic() + within_s, FIRST_PAUSE_S
        while True:
            try:
                self._ask(method, group_path(key), body, min(REQUEST_S, max(0.1, end_s - time.monotonic())))
                return
            except Unreachable:
                # Half of each pause is chance, so that many runs don't return in step.
                pause = pause_s * random.uniform(0.5, 1)
                if time.monotonic() + pause >= end_s:
                    raise
                time.sleep(pause)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def groups(self) -> Iterator[dict[str, Any]]:
        """Yield each group as the gateway's API shows it: `labels`, and a key per metric."""
        yield from self._ask("GET", "/api/v1/metrics", "", REQUEST_S).json()["data"]

    def _ask(self, method: str, path: str, body: str, timeout_s: float) -> Any:
        import httpx

        try:
            answer = httpx.request(method, self._url + path, content=body.encode(), timeout=timeout_s, verify=_authorities())
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.shown} does not answer ({redact(str(error)) or type(error).__name__})") from None
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Unreachable(f"{self.shown} answers {answer.status_code}")
        if answer.status_code >= 300:
            raise Refused(f"{self.shown} refuses {method} {path}: {answer.status_code} {' '.join(answer.text.split())[:300]}; see its log")
        return answer


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Return whom to trust; read once, as reading takes 30 ms."""
    return ssl.create_default_context()


def group_path(key: Mapping[str, str]) -> str:
    """Return the path of a group; `job` comes first. Values that a path can't hold are in base64, as the gateway reads it."""
    parts = [_part("job", key["job"]), *(_part(name, value) for name, value in sorted(key.items()) if name != "job")]
    return "/metrics/" + "/".join(parts)


def _part(name: str, value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", value):
        return f"{name}/{value}"
    return f"{name}@base64/{base64.urlsafe_b64encode(value.encode()).decode() or '='}"
