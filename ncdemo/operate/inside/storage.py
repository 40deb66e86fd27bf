"""Whether storage is reached with the jobs' identity: by what a recent job did, or by a short job that lists it and is deleted."""

import datetime
import json
import time

from ncdemo.operate.inside.spaces import waits_for
from ncdemo.operate.inside.wanted import Manifest, Wanted, holds, name, space
from ncdemo.operate.job import Tell
from ncdemo.operate.kube import Kube, NotThere
from ncdemo.spec.finding import Finding
from ncdemo.spec.job import NCDEMO_RESULTS_URI, NCDEMO_STORAGE_ACCOUNT
from ncdemo.spec.job_labels import APPLICATION, CONTAINER, NAME

JOBS = "/apis/batch/v1"
RECENT_H = 24.0
PROBE_S = 900.0
"""The image is gigabytes, and a node of the system pool may not have it yet."""
POLL_S = 1.0


def copying_jobs(kube: Kube, wanted: Wanted) -> list[Manifest]:
    """Return the jobs of ncdemo's that copy their results to storage, the newest last."""
    paths = [f"{JOBS}/namespaces/{one}/jobs" for one in wanted.namespaces] or [f"{JOBS}/jobs"]
    found = [job for path in paths for job in kube.ask("GET", path, labelSelector=f"{NAME}={APPLICATION}")["items"]]
    return sorted((job for job in found if NCDEMO_RESULTS_URI in env_of(job)), key=lambda job: job["metadata"]["creationTimestamp"])


def env_of(job: Manifest) -> dict[str, str]:
    containers = job["spec"]["template"]["spec"]["containers"]
    mine = next((one for one in containers if one["name"] == CONTAINER), containers[0])
    return {one["name"]: one["value"] for one in mine.get("env") or [] if "value" in one}


def recent(kube: Kube, wanted: Wanted, probe: str) -> list[Finding]:
    """Judge by jobs that ended: one is complete only when all its results are in storage. `probe`: the command that tries it."""
    if wanted.stack and not wanted.cluster:
        return []  # results stay on a volume
    copying = copying_jobs(kube, wanted)
    done = [job for job in copying if holds(job.get("status", {}).get("conditions") or [], "Complete")[0]]
    last = max(done, key=_ended_at, default=None)
    if last is None:
        text = "no job of this cluster has copied its results yet" if copying else "no job of ncdemo's is there to judge by"
        return [Finding("storage", "unknown", text, probe)]
    age_h = (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(_ended_at(last))).total_seconds() / 3600
    env = env_of(last)
    text = f"{name(last)} copied its results to {env[NCDEMO_RESULTS_URI]} of {env.get(NCDEMO_STORAGE_ACCOUNT, 'an unnamed account')}"
    if age_h > RECENT_H:
        return [Finding("storage", "unknown", f"{text}, but {age_h:.0f} h ago", probe)]
    return [Finding("storage", "ok", f"{text}, {age_h:.0f} h ago" if age_h >= 1 else f"{text} within the last hour")]


def _ended_at(job: Manifest) -> str:
    return str(job.get("status", {}).get("completionTime") or job["metadata"]["creationTimestamp"])


def volumes(kube: Kube, wanted: Wanted) -> list[Finding]:
    """Say whether the volumes that jobs write to are there and bound."""
    found = []
    for want in wanted.of_kind("PersistentVolumeClaim"):
        check = f"volume {space(want)}/{name(want)}"
        try:
            live = kube.ask("GET", f"/api/v1/namespaces/{space(want)}/persistentvolumeclaims/{name(want)}")
        except NotThere:
            found.append(Finding(check, "fail", "isn't there, so no job can start", wanted.up))
            continue
        phase = live.get("status", {}).get("phase")
        describe = f"kubectl describe pvc -n {space(want)} {name(want)}"
        if phase == "Bound":
            found.append(Finding(check, "ok", "bound"))
        elif phase == "Pending":
            found.append(Finding(check, "unknown", "isn't bound yet; some classes wait for the first pod that uses it", describe))
        else:
            found.append(Finding(check, "fail", f"is {phase}", describe))
    return found


def probe(kube: Kube, job: Manifest, tell: Tell) -> Finding:
    """Run a job that lists the results, wait for its words, delete it. Where this is cut off, its time to live removes it."""
    path = f"{JOBS}/namespaces/{space(job)}/jobs"
    kube.ask("POST", path, job)
    tell(f"{space(job)}/{name(job)}: made; it is deleted when it has ended, at the latest after {PROBE_S / 60:.0f} minutes")
    try:
        return _outcome(kube, job, path, tell)
    finally:
        kube.ask("DELETE", f"{path}/{name(job)}", propagationPolicy="Background")


def _outcome(kube: Kube, job: Manifest, path: str, tell: Tell) -> Finding:
    until, told = time.monotonic() + PROBE_S, ""
    pods = f"/api/v1/namespaces/{space(job)}/pods"
    see = f"kubectl get events -n {space(job)}"
    while time.monotonic() < until:
        live = kube.ask("GET", f"{path}/{name(job)}")
        conditions = live.get("status", {}).get("conditions") or []
        mine = kube.ask("GET", pods, labelSelector=f"batch.kubernetes.io/job-name={name(job)}")["items"]
        if holds(conditions, "Complete")[0] or holds(conditions, "Failed")[0]:
            said = _said(kube, f"{pods}/{name(mine[-1])}/log") if mine else []
            return _judge(said, holds(conditions, "Failed")[1], see)
        why = next(filter(None, map(waits_for, mine)), "")
        if why and why != told:
            tell(f"{name(job)}: waits: {why}")
            told = why
        time.sleep(POLL_S)
    return Finding("storage", "unknown", f"the probe had not ended after {PROBE_S / 60:.0f} minutes ({told or 'it ran'})", see)


def _said(kube: Kube, path: str) -> list[str]:
    # As a stream: the client would take a line of JSON apart.
    with kube.lines(path, container=CONTAINER) as chunks:
        return [line for line in b"".join(chunks).decode(errors="replace").splitlines() if line.strip()]


def _judge(said: list[str], failed: str, see: str) -> Finding:
    for line in reversed(said):
        try:
            told = json.loads(line)
            return Finding(
                "storage", "ok", f"the jobs' identity listed {told['container']} of {told['account']}: {told['entries']} entries"
            )
        except (ValueError, KeyError, TypeError):
            continue
    if any("No module named workloads.storage_probe" in line for line in said):
        return Finding("storage", "unknown", "the jobs' image is older than the probe", "ncdemo image build train --azure --stack STACK")
    error = next((line.removeprefix("Error: ") for line in reversed(said) if line.startswith("Error: ")), "")
    if error:
        text, _, remedy = error.rpartition("; ")
        return Finding("storage", "fail", text or error, remedy if text else see)
    return Finding("storage", "unknown", f"the probe said nothing ({failed or 'no reason'})", see)
