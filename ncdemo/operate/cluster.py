"""Jobs on Kubernetes: found by the labels that ncdemo gives them, their state from the Job's conditions and its pods.

place = Cluster(Kube.connect("aks-ncdemo-dev", None, login), ["ncdemo"], "on stack dev", "ncdemo jobs ls --stack dev")
"""

import copy
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ncdemo.operate.job import Job, State, Tell
from ncdemo.operate.kube import Kube, NotThere
from ncdemo.operate.pod_logs import Pod, pod_logs
from ncdemo.spec.base import SpecError
from ncdemo.spec.job_labels import APPLICATION, INSTANCE, JOB, KIND, NAME, QUEUE_LABEL
from ncdemo.spec.paths import cache_dir

JOBS = "/apis/batch/v1"
SELECTOR = f"{NAME}={APPLICATION}"
GONE_S = 90.0
"""How long a deleted Job may take to go."""
GIVEN_LABELS = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")
"""What the API itself puts on a Job's pods."""
Manifest = dict[str, Any]


class Cluster:
    """The jobs of some namespaces, or of all."""

    def __init__(self, kube: Kube, namespaces: Sequence[str], shown: str, listing: str) -> None:
        self._kube, self._namespaces, self.shown, self.listing = kube, namespaces, shown, listing
        # A Job that is made again is nowhere for a moment: until it is back, its manifest lies here.
        self._saved = cache_dir() / "retry" / hashlib.sha256(kube.host.encode()).hexdigest()[:12]

    def jobs(self) -> list[Job]:
        pods = defaultdict(list)
        for pod in self._list("/api/v1", "pods"):
            pods[pod["metadata"]["namespace"], pod["metadata"]["labels"].get(INSTANCE)].append(Pod(pod))
        found = [read_job(one, pods[one["metadata"]["namespace"], one["metadata"]["name"]]) for one in self._list(JOBS, "jobs")]
        lost = [
            read_lost(path) for path in self._saved.glob("*.json") if not self._namespaces or path.name.split(".")[0] in self._namespaces
        ]
        found += [job for job in lost if job.name not in {one.name for one in found}]
        return sorted(found, key=lambda job: job.started_at or "", reverse=True)

    def logs(self, job: Job, *, follow: bool, tail: int | None, node: int, tell: Tell) -> Iterator[bytes]:
        return pod_logs(self._kube, job, node, lambda: self._now(job), follow=follow, tail=tail, tell=tell)

    def cancel(self, job: Job, tell: Tell) -> str:
        if job.ended:
            raise SpecError(
                f"{job.name}: is {job.state}, so there is nothing to cancel; see its results with: ncdemo results pull {job.name}"
            )
        self._kube.ask("DELETE", self._path(job), propagationPolicy="Background")
        tell("its pods have 30 s to save what they can. Take it out of the stack's jobs too: `pulumi refresh` and `up` would make it again")
        return f"{job.name}: deleted"

    def retry(self, job: Job, tell: Tell) -> str:
        saved = self._saved / f"{job.place}.{job.name}.json"
        try:
            live = self._kube.ask("GET", self._path(job))
        except NotThere:
            live = None
        if live and read_job(live, []).state != "failed":
            now = read_job(live, []).state
            raise SpecError(
                f"{job.name}: is {now}, and only a failed job is started again; "
                + ("see its results" if now == "finished" else "cancel it first")
            )
        if live:
            saved.parent.mkdir(parents=True, exist_ok=True)
            saved.write_text(json.dumps(again(live), indent=1))
            self._delete(job, live["metadata"]["uid"])
        try:
            self._kube.ask("POST", self._path(job).rpartition("/")[0], json.loads(saved.read_text()))
        except SpecError as error:
            raise SpecError(
                f"{job.name}: is deleted and not made again ({error}); do so with the same command, or: kubectl create -f {saved}"
            ) from None
        saved.unlink()
        return f"{job.name}: started again"

    def _delete(self, job: Job, uid: str) -> None:
        """Delete a Job, no other of its name, and wait until it is gone."""
        own = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        self._kube.ask("DELETE", self._path(job), own, propagationPolicy="Background")
        until = time.monotonic() + GONE_S
        while time.monotonic() < until:
            try:
                self._kube.ask("GET", self._path(job))
            except NotThere:
                return
            time.sleep(0.3)
        raise SpecError(
            f"{job.name}: is still being deleted after {GONE_S:.0f} s; see `kubectl describe job {job.name} -n {job.place}`, then retry"
        )

    def _now(self, job: Job) -> tuple[Job, list[Pod]] | None:
        """Return a job and its pods as they are; None when it was deleted."""
        try:
            one = self._kube.ask("GET", self._path(job))
        except NotThere:
            return None
        listed = self._kube.ask("GET", f"/api/v1/namespaces/{job.place}/pods", labelSelector=f"{INSTANCE}={job.name}")
        pods = [Pod(pod) for pod in listed["items"]]
        return read_job(one, pods), pods

    def _path(self, job: Job) -> str:
        return f"{JOBS}/namespaces/{job.place}/jobs/{job.name}"

    def _list(self, api: str, kind: str) -> list[Manifest]:
        paths = [f"{api}/namespaces/{name}/{kind}" for name in self._namespaces] or [f"{api}/{kind}"]
        return [item for path in paths for item in self._kube.ask("GET", path, labelSelector=SELECTOR)["items"]]


def read_job(job: Manifest, pods: list[Pod]) -> Job:
    """Return a Job as its conditions and its pods tell it."""
    meta, spec, status = job["metadata"], job["spec"], job.get("status", {})
    labels = meta.get("labels", {})
    held = {one["type"]: one for one in status.get("conditions", []) if one["status"] == "True"}
    state: State = "running"
    detail, code = "", None
    if "Complete" in held:
        state = "finished"
    elif "Failed" in held:
        state, detail = "failed", f"{held['Failed'].get('reason', '')}: {held['Failed'].get('message', '')}"
        code = next((pod.exit_code for pod in sorted(pods, key=lambda pod: pod.made_at, reverse=True) if pod.exit_code), None)
    elif "deletionTimestamp" in meta:
        detail = "is being deleted"
    elif spec.get("suspend"):
        queue = labels.get(QUEUE_LABEL)
        state, detail = "waiting", f"in queue {queue}" if queue else "suspended, as the stack says; take `suspend` out there"
    elif not any(pod.runs for pod in pods) and not status.get("ready"):
        state, detail = "waiting", next((pod.waits_for for pod in pods if pod.waits_for), "for its pods")
    return Job(meta["name"], state, labels.get(KIND), meta["creationTimestamp"], detail, meta["namespace"], code, labels.get(JOB))


def read_lost(path: Path) -> Job:
    """Return a Job that was deleted to be made again, and was not."""
    meta = json.loads(path.read_text())["metadata"]
    detail = f"was deleted to be made again, and that was cut off; make it with: ncdemo jobs retry {meta['name']}"
    return Job(meta["name"], "killed", meta["labels"].get(KIND), None, detail, meta["namespace"], group=meta["labels"].get(JOB))


def again(live: Manifest) -> Manifest:
    """Return what to create so that the same job starts again: the Job without what the API added to it."""
    job = copy.deepcopy(live)
    meta, spec = job["metadata"], job["spec"]
    kept = {key: meta[key] for key in ("name", "namespace", "labels", "annotations") if meta.get(key)}
    kept["labels"] = _own(kept.get("labels", {}))
    if not spec.get("manualSelector"):
        spec.pop("selector", None)
    template = spec["template"]["metadata"]
    template["labels"] = _own(template.get("labels", {}))
    template.pop("creationTimestamp", None)
    if QUEUE_LABEL in kept["labels"]:
        spec["suspend"] = True  # the queue lets it go
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": kept, "spec": spec}


def _own(labels: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key not in GIVEN_LABELS}
