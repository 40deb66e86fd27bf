"""What a check found, and the command that mends it: the one form in which `ncdemo doctor` and `ncdemo stack expire` speak.

Finding("disk", "warn", "12 GiB free in runs", "rm -r runs/OLD")
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Finding:
    check: str
    status: Status
    """unknown: it could not be asked, e.g. for lack of rights; it is never taken for ok or fail."""
    found: str
    remedy: str | None = None
    """A command, or where there is none, what to do; None when all is well."""


def as_text(findings: Iterable[Finding]) -> str:
    """Return a line per finding, its remedy below it."""
    lines = []
    for one in findings:
        lines.append(f"{one.status:<8} {one.check:<28} {one.found}")
        lines += [f"{'':<37} remedy: {one.remedy}"] if one.remedy else []
    return "\n".join(lines)


def failed(findings: Iterable[Finding]) -> bool:
    return any(one.status == "fail" for one in findings)
