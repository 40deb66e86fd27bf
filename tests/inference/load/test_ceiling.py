"""The client's ceiling, measured for real, and what counts as too near to it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.inference.load.plans import plan
from workloads.inference.load import ceiling as room
from workloads.inference.load.ceiling import Ceiling, ceiling, headroom
from workloads.inference.load.plan import Report
from workloads.inference.load.run import run
from workloads.inference.load.schedule import closed


def _report(events: int, cpu_share: float, processes: int = 1) -> Report:
    return Report(processes, 2.0, 0.0, 0.0, cpu_share, events, 1, 0.0, 1, 0)


def test_a_ceiling_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "ceiling.json"
    top = ceiling(kept)
    assert top.events_per_cpu_s > 20_000
    monkeypatch.setattr(room, "measure", lambda: pytest.fail("measured again"))
    assert ceiling(kept) == top
    other = top.__dict__ | {"machine": "another"}
    for text in (json.dumps(other), "{", "[]"):
        kept.write_text(text)
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            ceiling(kept)


@pytest.mark.parametrize(
    ("report", "used", "flagged"),
    [
        (_report(20_000, 0.1), 0.1, False),
        (_report(100_000, 0.1), 0.5, False),
        (_report(110_000, 0.1), 0.55, True),
        (_report(110_000, 0.1, processes=2), 0.275, False),
        (_report(1_000, 0.6), 0.6, True),
    ],
)
def test_more_than_half_is_flagged(report: Report, used: float, flagged: bool) -> None:
    share = headroom(report, Ceiling("", 100_000.0, 100_000.0))
    assert (share.used, share.flagged) == (pytest.approx(used), flagged)


def test_a_slow_server_leaves_headroom(canned: Callable[..., str]) -> None:
    report = run(plan(canned("--ttft-ms", "20", "--itl-ms", "20"), 16, closed(8), tokens=20)).report
    assert not headroom(report, Ceiling("", 100_000.0, 100_000.0)).flagged
