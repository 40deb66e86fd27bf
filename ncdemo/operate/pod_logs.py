"""What the pods of a job say, over all of them: a pod that is evicted is followed by the next one, and a cut line is taken up again.

for chunk in pod_logs(kube, job, 0, now, follow=True, tail=None, tell=print): ...
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ncdemo.operate.job import Job, Tell, Unreachable
from ncdemo.operate.kube import Kube
from ncdemo.spec.base import SpecError
from ncdemo.spec.job_labels import CONTAINER

POLL_S = 1.0
PATIENCE_S = 300.0
"""A cluster that is away so long is asked again."""
INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class Pod:
    """A pod of a job."""

    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def made_at(self) -> str:
        return str(self.manifest["metadata"]["creationTimestamp"])

    @property
    def node(self) -> int:
        meta = self.manifest["metadata"]
        return int(meta.get("labels", {}).get(INDEX) or meta.get("annotations", {}).get(INDEX) or 0)

    @property
    def runs(self) -> bool:
        return "running" in self._state

    @property
    def has_log(self) -> bool:
        return self.runs or "terminated" in self._state

    @property
    def exit_code(self) -> int | None:
        code: int | None = self._state.get("terminated", {}).get("exitCode")
        return code

    @property
    def waits_for(self) -> str:
        """Why it doesn't run yet; empty when it does, or did."""
        if self.has_log:
            return ""
        found = [
            one
            for one in self.manifest.get("status", {}).get("conditions", [])
            if one["type"] == "PodScheduled" and one["status"] == "False"
        ]
        if found:
            return f"for a node ({found[0].get('message', found[0].get('reason', ''))})"
        waiting = self._state.get("waiting", {})
        return f"for its container ({waiting.get('message') or waiting.get('reason', 'not started')})"

    @property
    def _state(self) -> dict[str, Any]:
        states = self.manifest.get("status", {}).get("containerStatuses", [])
        return next((one.get("state", {}) for one in states if one["name"] == CONTAINER), {})


Now = Callable[[], tuple[Job, list[Pod]] | None]


def pod_logs(kube: Kube, job: Job, node: int, now: Now, *, follow: bool, tail: int | None, tell: Tell) -> Iterator[bytes]:
    """Yield what one node says: of its newest pod, or, following, of that and all later ones until the job has ended."""
    reader, told = _Reader(kube, job.place, follow, tail), ""
    away_since: float | None = None
    while True:
        try:
            found = now()
            if found is None:
                raise SpecError(
                    f"{job.name}: was deleted, and its pods' words with it; its log is in storage: ncdemo results pull {job.name}"
                )
            state, pods = found
            mine = sorted((pod for pod in pods if pod.node == node), key=lambda pod: pod.made_at)
            ready = [pod for pod in mine if pod.has_log]
            if ready:
                yield from reader.read(ready[-1])
            why = (mine[-1].waits_for if mine else state.detail) or "for its pods"
            away_since = None
        except Unreachable as error:
            away_since = away_since or time.monotonic()
            if not follow or time.monotonic() > away_since + PATIENCE_S:
                raise
            ready, state, why = [], job, str(error)
        if not ready and state.ended:
            raise SpecError(f"{job.name}: its pods are gone; its log is in storage: ncdemo results pull {job.name}")
        if not ready and not follow:
            raise SpecError(f"{job.name}: node {node} has said nothing yet; it waits {why}. Wait with: --follow")
        if not follow or state.ended:
            return
        if (not ready or mine[-1] is not ready[-1]) and why != told:
            tell(f"{job.name}: waits {why}")
            told = why
        time.sleep(POLL_S)


class _Reader:
    """Reads pods on from where it was, by the stamps that the kubelet puts before each line."""

    def __init__(self, kube: Kube, namespace: str, follow: bool, tail: int | None) -> None:
        self._kube, self._namespace, self._follow, self._tail = kube, namespace, follow, tail
        self._pod, self._last = "", b""

    def read(self, pod: Pod) -> Iterator[bytes]:
        if pod.name != self._pod:
            self._pod, self._last = pod.name, b""
        query: dict[str, Any] = {"container": CONTAINER, "timestamps": True, "follow": self._follow and pod.runs}
        if self._last:
            query["sinceTime"] = self._last.decode()
        elif self._tail is not None:
            query["tailLines"], self._tail = self._tail, None
        with self._kube.lines(f"/api/v1/namespaces/{self._namespace}/pods/{pod.name}/log", **query) as lines:
            for line in _whole(lines):
                stamp, _, text = line.partition(b" ")
                # sinceTime counts whole seconds: what was read of this one comes again. Stamps have as many digits as they need.
                if self._last and _key(stamp) <= _key(self._last):
                    continue
                self._last = stamp
                yield text


def _whole(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Return lines from chunks of any length; the last one as it is."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def _key(stamp: bytes) -> tuple[bytes, bytes]:
    """Return an RFC 3339 stamp in UTC so that it can be compared."""
    seconds, _, fraction = stamp.rstrip(b"Z").partition(b".")
    return seconds, fraction.ljust(9, b"0")
