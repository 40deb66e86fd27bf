"""Jobs on VMs: which there are and whether they started from the run commands, what became of them from their copies in Blob.

A job's run command only starts its systemd unit; so it is stopped and started again by a script on each of its VMs. The script that
stops it is a run command that stays: it is how everybody sees that the job was cancelled, also before there is a copy.
"""

import datetime
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ncdemo.operate.arm import Arm
from ncdemo.operate.blobs import Blobs
from ncdemo.operate.job import Job, Tell, Unreachable
from ncdemo.spec.base import SpecError
from ncdemo.spec.job_labels import VM_STATE, job_unit

NAME = re.compile(r"((.+)-[0-9a-f]{10})-(\d+)")
"""Of a run command: job, its name in the stack, node."""
POLL_S = 5.0
"""Between two looks at a log; the node copies it every 30 s or less often."""
AWAY_S = 300.0
CANCELLED = "-cancelled"
"""Ends the name of the run command that stopped a job; `retry` deletes it."""
CANCEL_S = 300
STARTING = ("Unknown", "Pending", "Running")
OK, BROKEN = "ncdemo: ok", "ncdemo: the unit is not there"


@dataclass(frozen=True)
class Started:
    """A job's run commands."""

    name: str
    group: str
    vms: dict[int, str]
    """Node -> VM."""
    cancelled: set[int]
    """Nodes on which it was cancelled since it was started."""


class Machines:
    """The jobs on a stack's VMs."""

    def __init__(self, arm: Arm, resource_group: str, vms: Sequence[str], blobs: Blobs, shown: str, listing: str) -> None:
        self._arm, self._vms, self._blobs, self.shown, self.listing = arm, vms, blobs, shown, listing
        group = f"/subscriptions/{arm.subscription()}/resourceGroups/{resource_group}"
        self._path = f"{group}/providers/Microsoft.Compute/virtualMachines"

    def jobs(self) -> list[Job]:
        found = [self._read(one) for one in self._started().values()]
        return sorted(found, key=lambda job: job.started_at or "", reverse=True)

    def logs(self, job: Job, *, follow: bool, tail: int | None, node: int, tell: Tell) -> Iterator[bytes]:
        folder = f"{job.name}-node{node}" if node else job.name
        offset, told, away_since = 0, False, None
        while True:
            try:
                ended = not follow or self._read(self._started()[job.name]).ended
                text = self._blobs.log(folder, offset)
                away_since = None
            except Unreachable:
                away_since = away_since or time.monotonic()
                if not follow or time.monotonic() > away_since + AWAY_S:
                    raise
                ended, text = False, b""
            if text:
                offset += len(text)
                yield _last(text, tail) if tail is not None else text
                tail = None
            if ended:
                break
            if not offset and not told:
                tell(f"{job.name}: waits for its log, which the node copies to storage as it grows ({job.detail or job.state})")
                told = True
            time.sleep(POLL_S)
        if not offset:
            said = self._blobs.run_command_said(f"{job.name}-{node}")
            raise SpecError(f"{job.name}: node {node} has no log in storage yet ({said or job.detail or job.state}); wait with: --follow")

    def cancel(self, job: Job, tell: Tell) -> str:
        if job.ended and job.state not in ("interrupted", "cancelled"):
            raise SpecError(
                f"{job.name}: is {job.state}, so there is nothing to cancel; see its results with: ncdemo results pull {job.name}"
            )
        unit = shlex.quote(job_unit(job.name))
        started = self._started()[job.name]
        for node, vm in started.vms.items():
            if self._power(vm) != "running":
                tell(f"{vm}: doesn't run, so the job is stopped there; it goes on when the VM is started, until it is cancelled then")
                continue
            name = f"{job.name}-{node}{CANCELLED}"
            if node in started.cancelled:
                self._arm.ask("DELETE", f"{self._path}/{vm}/runCommands/{name}")
            self._leave(vm, name, [f"systemctl disable --now {unit}", f"systemctl reset-failed {unit} 2>/dev/null || true", f"echo {OK}"])
            tell(f"{vm}: stopped")
        return f"{job.name}: cancelled; start it again with: ncdemo jobs retry {job.name}"

    def retry(self, job: Job, tell: Tell) -> str:
        if job.state in ("finished", "running"):
            raise SpecError(
                f"{job.name}: is {job.state}, so it isn't started again"
                + ("; cancel it first" if job.state == "running" else "; see its results")
            )
        unit, ended = shlex.quote(job_unit(job.name)), f"{VM_STATE}/ended/{job.name} {VM_STATE}/used-{job.name}"
        script = [f"[ -e /etc/ncdemo/jobs/{job.name}/run.yaml ] || {{ echo '{BROKEN}'; exit 0; }}", f"rm -f {ended}"]
        script += [f"systemctl reset-failed {unit} 2>/dev/null || true", f"systemctl enable {unit}", f"systemctl start --no-block {unit}"]
        started = self._started()[job.name]
        for node, vm in started.vms.items():
            if node in started.cancelled:
                self._arm.ask("DELETE", f"{self._path}/{vm}/runCommands/{job.name}-{node}{CANCELLED}")
            if self._power(vm) != "running":
                tell(f"{vm}: is being started; it costs money from now on, until it is idle")
                self._arm.ask("POST", f"{self._path}/{vm}/start")
            self._script(vm, [*script, f"echo {OK}"])
            tell(f"{vm}: started the job again")
        return f"{job.name}: started again; until its node has copied its first words, in a minute or so, the state before is shown"

    def _started(self) -> dict[str, Started]:
        """Return the jobs of all VMs, by their run commands."""
        found: dict[str, Started] = {}
        for vm in self._vms:
            for one in self._arm.ask("GET", f"{self._path}/{vm}/runCommands")["value"]:
                if match := NAME.fullmatch(one["name"].removesuffix(CANCELLED)):
                    name, group, node = match.groups()
                    known = found.setdefault(name, Started(name, group, {}, set()))
                    if one["name"].endswith(CANCELLED):
                        known.cancelled.add(int(node))
                    else:
                        known.vms[int(node)] = vm
        return {name: one for name, one in found.items() if one.vms}

    def _read(self, one: Started) -> Job:
        """Return a job: as its copy says, where it has a result; else as its run command on node 0 and its VM say."""
        job = self._blobs.job(one.name)
        node = min(one.vms)
        vm = one.vms[node]
        job = replace(job, place=", ".join(one.vms[node] for node in sorted(one.vms)), group=one.group)
        if job.state != "unknown":
            return job
        if node in one.cancelled and (at := self._cancelled_at(vm, f"{one.name}-{node}{CANCELLED}")):
            changed = self._blobs.log_changed_at(one.name)
            if changed is None or changed <= at:
                return replace(job, state="cancelled", detail=f"start it again with: ncdemo jobs retry {one.name}")
        said = self._view(vm, f"{one.name}-{node}")
        state, began = said.get("executionState", "Unknown"), said.get("startTime")
        if state in STARTING:
            return replace(job, state="waiting", detail="its run command waits for the VM", started_at=began)
        if state != "Succeeded":
            words = (said.get("error") or said.get("executionMessage") or state).strip().splitlines()
            return replace(job, state="failed", detail=f"it was not started: {words[-1] if words else state}", started_at=began)
        power = self._power(vm)
        if power != "running":
            return replace(job, state="interrupted", detail=f"{vm} is {power}; go on with: ncdemo jobs retry {one.name}", started_at=began)
        return replace(job, state="running", detail="", started_at=began)

    def _view(self, vm: str, name: str) -> dict[str, Any]:
        """Return what became of a run command."""
        found = self._arm.ask("GET", f"{self._path}/{vm}/runCommands/{name}", **{"$expand": "instanceView"})
        return found["properties"].get("instanceView") or {}

    def _cancelled_at(self, vm: str, name: str) -> datetime.datetime | None:
        """Return when a job had been stopped; None while it isn't, or when that failed."""
        view = self._view(vm, name)
        if view.get("executionState") != "Succeeded" or OK not in (view.get("output") or "") or not view.get("endTime"):
            return None
        return datetime.datetime.fromisoformat(view["endTime"])

    def _leave(self, vm: str, name: str, lines: list[str]) -> None:
        """Run a script on a VM as a run command that stays. Raise SpecError when it doesn't come to its end."""
        where = self._arm.ask("GET", f"{self._path}/{vm}")["location"]
        own = {"source": {"script": "\n".join(["set -eu", *lines])}, "asyncExecution": False, "timeoutInSeconds": CANCEL_S}
        self._arm.ask("PUT", f"{self._path}/{vm}/runCommands/{name}", {"location": where, "properties": own})
        view = self._view(vm, name)
        if OK not in (view.get("output") or ""):
            words = (
                (view.get("error") or view.get("executionMessage") or view.get("executionState") or "it said nothing").strip().splitlines()
            )
            raise SpecError(f"{vm}: the script failed ({words[-1]}); see there: journalctl -u 'ncdemo-job@*'")

    def _power(self, vm: str) -> str:
        """Return running, deallocated, ..."""
        view = self._arm.ask("GET", f"{self._path}/{vm}/instanceView")
        codes = [one["code"].partition("/") for one in view.get("statuses", [])]
        return next((state for kind, _, state in codes if kind == "PowerState"), "in an unknown state")

    def _script(self, vm: str, lines: list[str]) -> None:
        """Run a script on a VM. Raise SpecError with its last words when it doesn't come to its end."""
        body = {"commandId": "RunShellScript", "script": ["set -eu", *lines]}
        answer = self._arm.ask("POST", f"{self._path}/{vm}/runCommand", body)
        said = " ".join(one.get("message", "") for one in answer.get("value", []))
        if OK not in said:
            if BROKEN in said:
                raise SpecError(f"{vm}: the job's files are not there; they come with: ncdemo stack up")
            words = [line.strip() for line in said.splitlines() if line.strip() not in ("", "[stdout]", "[stderr]")] or ["it said nothing"]
            raise SpecError(f"{vm}: the script failed ({words[-1]}); see there: journalctl -u 'ncdemo-job@*'")


def _last(text: bytes, lines: int) -> bytes:
    return b"".join(text.splitlines(keepends=True)[-lines:]) if lines else b""
