"""A comparison as text and as JSON."""

from typing import Any

from ncdemo.infra.terraform.differences import Difference
from ncdemo.infra.terraform.parity import Compared, Parity


def as_text(found: Parity) -> str:
    """Return what differs, what may, and the share that could be compared."""
    lines = [f"{side} alone: {one.type} {one.name} ({one.source})" for side, one in found.alone]
    lines += [f"differs: {one.type} {one.name} {one.path}: pulumi {one.pulumi!r}, terraform {one.terraform!r}" for one in found.unequal]
    rows: dict[Difference, list[Compared]] = {}
    for one in found.allowed:
        if one.difference:
            rows.setdefault(one.difference, []).append(one)
    lines += [f"may differ, {len(ones)} x {ones[0].path}: {row.reason}" for row, ones in rows.items()]
    counts = f"{len({(one.type, one.name) for one in found.compared})} resources, {len(found.compared)} properties"
    equal = sum(one.equal for one in found.compared)
    faults = len(found.unequal) + len(found.alone)
    verdict = "Pulumi and Terraform build the same" if found.holds else f"{faults} faults"
    lines.append(f"{counts}: {equal} equal, {len(found.allowed)} may differ, {len(found.unequal)} differ")
    lines.append(f"{found.share:.1%} of the properties that either side sets are set by both. {verdict}.")
    return "\n".join(lines) + "\n"


def as_json(found: Parity) -> dict[str, Any]:
    return {
        "holds": found.holds,
        "share": found.share,
        "properties": [
            {
                "type": one.type,
                "name": one.name,
                "path": one.path,
                "pulumi": one.pulumi,
                "terraform": one.terraform,
                "equal": one.equal,
                "reason": one.difference.reason if one.difference else None,
            }
            for one in found.compared
        ],
        "alone": [{"side": side, "type": one.type, "name": one.name, "source": one.source} for side, one in found.alone],
    }
