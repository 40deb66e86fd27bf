"""What went wrong with GPUs, in sentences: lost, slowed down, XIDs, memory errors. A healthy GPU has none.

notes(run.telemetry)
"""

from collections.abc import Iterator

from ncdemo.report.samples import Health, Telemetry
from ncdemo.report.show import number, percent

MOST_XIDS = 8
"""Named one by one; a GPU that fails in a loop has thousands."""


def notes(telemetry: Telemetry) -> list[str]:
    lost = [
        f"GPU {loss.index} stopped answering at {number(loss.at_s, 3)} s: {loss.why}{'; it answered again later' if loss.returned else ''}."
        for loss in telemetry.lost
    ]
    return lost + [f"GPU {index} {sentence}" for index, health in telemetry.health.items() for sentence in _sentences(health)]


def slowed_share(health: Health) -> float | None:
    """Return the share of samples in which it was slowed down by the commonest fault; None where no sample says."""
    return max(health.slowed.values(), default=0) / health.samples if health.samples else None


def _sentences(health: Health) -> Iterator[str]:
    for fault, count in sorted(health.slowed.items()):
        yield f"was slowed down {fault} in {percent(count / health.samples)} of {health.samples:,} samples: it measured a slower GPU than its model."
    if health.xids:
        shown = ", ".join(f"{xid} at {number(at_s, 3)} s" for at_s, xid in health.xids[:MOST_XIDS])
        more = len(health.xids) - MOST_XIDS
        yield f"reported XID {shown}{f' and {more:,} more' if more > 0 else ''}."
    for kind, count in sorted(health.ecc.items()):
        yield f"counted {count:,} {kind} memory error{'s' * (count > 1)} during the run."
