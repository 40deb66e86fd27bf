"""A job as an operator sees it, wherever it runs: one word for its state, and what every place can do with it.

place = Local(runs_dir())
job = find(place, "tune")
code = wait(place, job, timeout_s=None)
"""

import difflib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED

State = Literal["waiting", "running", "finished", "failed", "interrupted", "cancelled", "killed", "unknown"]
EXIT_KILLED = 137
"""What a shell says of a process that SIGKILL ended."""
EXIT_TIMEOUT = 124
"""As timeout(1): the job goes on, the waiting ended."""
EXITS: dict[State, int] = {
    "finished": EXIT_DONE,
    "failed": EXIT_FAILED,
    "interrupted": EXIT_INTERRUPTED,
    "cancelled": EXIT_INTERRUPTED,
    "killed": EXIT_KILLED,
}
"""States in which a job has ended -> the exit status that `wait` returns, unless the job's own is known."""
POLL_S = (0.2, 5.0)
"""The first and the longest time between two looks at a job."""
AWAY_S = 300.0
"""A cluster or storage that can't be reached is asked again so long while a job is waited for."""
Tell = Callable[[str], None]


class Unreachable(SpecError):
    """Who could say doesn't answer now; asking again may help."""


@dataclass(frozen=True)
class Job:
    """One job, as it is now."""

    name: str
    """With its hash, where it has one; of a local run its folder below the runs directory."""
    state: State
    kind: str | None = None
    started_at: str | None = None
    """UTC, ISO 8601."""
    detail: str = ""
    """Why it is so: the reason of a failure, what it waits for."""
    place: str = ""
    """Process, namespace or VM."""
    exit_code: int | None = None
    """Of the job itself, where it is known."""
    group: str | None = None
    """Its name in the stack, without the hash."""

    @property
    def ended(self) -> bool:
        return self.state in EXITS

    @property
    def exit_status(self) -> int:
        return self.exit_code if self.exit_code is not None else EXITS[self.state]


class Listed(Protocol):
    """What has jobs by name. Every method raises SpecError with a remedy."""

    shown: str
    """What it is, for messages."""
    listing: str
    """The command that lists it."""

    def jobs(self) -> list[Job]:
        """Return all jobs, the newest first."""


class Place(Listed, Protocol):
    """Where jobs run."""

    def logs(self, job: Job, *, follow: bool, tail: int | None, node: int, tell: Tell) -> Iterator[bytes]:
        """Yield what a node of a job says; `follow`: until the job has ended. `tell` gets what is no log, e.g. why there is none yet."""

    def cancel(self, job: Job, tell: Tell) -> str:
        """End a job that runs, in good order; return what was done."""

    def retry(self, job: Job, tell: Tell) -> str:
        """Start a job again that has ended without success; return what was done."""


def find(place: Listed, name: str, jobs: Sequence[Job] | None = None) -> Job:
    """Return a job by its name, or by its name in the stack: the newest then. Raise SpecError with what there is."""
    found = place.jobs() if jobs is None else list(jobs)
    match = next((job for job in found if job.name == name), None) or next((job for job in found if job.group == name), None)
    if match:
        return match
    near = difflib.get_close_matches(name, [job.name for job in found], n=1) or [job.name for job in found if job.name.startswith(name)][:1]
    hint = f"did you mean {near[0]}? " if near else ""
    raise SpecError(
        f"no job '{name}' {place.shown}; {hint}See them with: {place.listing}"
        if found
        else f"no job '{name}' {place.shown}: there are none; start one with: ncdemo train, ncdemo bench run or ncdemo stack up"
    )


def wait(place: Place, job: Job, timeout_s: float | None) -> Job | None:
    """Return a job when it has ended; None when that took too long."""
    until = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s, longest_s = POLL_S
    away_since: float | None = None
    while not job.ended:
        left_s = float("inf") if until is None else until - time.monotonic()
        if left_s <= 0:
            return None
        time.sleep(min(pause_s, left_s))
        pause_s = min(longest_s, pause_s * 1.3)
        try:
            job, away_since = find(place, job.name), None
        except Unreachable:
            away_since = away_since or time.monotonic()
            if time.monotonic() > away_since + AWAY_S:
                raise
        if job.state == "unknown":
            raise SpecError(
                f"{job.name}: its state can't be told ({job.detail}), so nobody knows when it ends; look at: ncdemo jobs logs {job.name}"
            )
    return job
