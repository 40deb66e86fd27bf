"""What a report says of GPUs that were slowed down, reported errors or were too busy to answer."""

import json

import pytest

from ncdemo.report import write_report
from ncdemo.report.gpu_health import MOST_XIDS, notes, slowed_share
from ncdemo.report.samples import to_telemetry

HEALTHY = {"index": 0, "power_w": 380.0, "throttle_reasons": ["power_cap"], "xids": [], "ecc_corrected": 7, "ecc_uncorrected": 0}


def telemetry(*gpus, **more):
    return to_telemetry([[{"time_s": float(i), "gpus": [dict(gpu)], **more} for i, gpu in enumerate(gpus)]])


def test_a_healthy_gpu_has_nothing_to_say():
    """Its memory errors are from before the run, and it runs at its power cap."""
    found = telemetry(HEALTHY, HEALTHY)
    assert notes(found) == []
    assert slowed_share(found.health[0]) == 0
    assert slowed_share(telemetry({"index": 0, "power_w": 9.0}).health[0]) is None


def test_faults_are_counted_and_xids_named():
    hot = HEALTHY | {"throttle_reasons": ["hw_slowdown", "sw_thermal", "hw_thermal"], "xids": [63], "ecc_corrected": 9}
    found = telemetry(
        HEALTHY, hot, HEALTHY | {"ecc_uncorrected": 1, "ecc_corrected": 10}, {"index": 0, "error": "GPU is lost", "xids": [79]}
    )
    said = notes(found)
    assert said == [
        "GPU 0 stopped answering at 3 s: GPU is lost.",
        "GPU 0 was slowed down by hardware in 33.3 % of 3 samples: it measured a slower GPU than its model.",
        "GPU 0 was slowed down by heat in 33.3 % of 3 samples: it measured a slower GPU than its model.",
        "GPU 0 reported XID 63 at 1 s, 79 at 3 s.",
        "GPU 0 counted 3 corrected memory errors during the run.",
        "GPU 0 counted 1 uncorrected memory error during the run.",
    ]
    many = telemetry(*[HEALTHY | {"xids": [13, 31]}] * MOST_XIDS)
    assert notes(many)[0].endswith(f"and {MOST_XIDS} more.")


def test_what_another_machine_counted_before_is_no_error_of_the_run():
    """A run that went on elsewhere: 9 corrected here, 5000 there before it came and 2 after."""
    counts = [(7, {"tick": 0}), (9, {"tick": 1}), (5000, {"tick": 0, "scheduling": "niceness 0"}), (5002, {"tick": 1}), (4, {"tick": 0})]
    lines = [{"time_s": float(i), "gpus": [HEALTHY | {"ecc_corrected": n}], **more} for i, (n, more) in enumerate(counts)]
    assert notes(to_telemetry([lines])) == ["GPU 0 counted 4 corrected memory errors during the run."]


def test_a_gpu_that_was_busy_with_the_sample_before_is_not_lost():
    busy = {"index": 0, "error": None, "power_w": None}
    found = telemetry(HEALTHY, busy, HEALTHY, busy)
    assert found.lost == []
    assert list(found.gpus[0]["time_s"]) == [0.0, 2.0]


@pytest.mark.parametrize(("ticks", "missed"), [([0, 1, 2], 0), ([0, 3, None], 2), ([5, 6, None, 0, 2], 1), ([None, None], 0)])
def test_ticks_without_a_sample_are_counted_in_every_attempt(ticks, missed):
    assert to_telemetry([[{"time_s": float(i), "tick": tick} for i, tick in enumerate(ticks)]]).missed == missed


def test_the_page_shows_them_and_only_them(train_run, tmp_path):
    run = train_run(gpus=2)
    calm = write_report([run], tmp_path / "calm.html").read_text()
    assert "slowed down" not in calm
    assert "XID" not in calm
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for i, sample in enumerate(samples):
        sample["tick"] = i + (i > 10)
        sample["gpus"][1] |= {"throttle_reasons": ["hw_thermal"] if i % 40 < 10 else [], "xids": [63] if i == 30 else []}
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    page = write_report([run], tmp_path / "hot.html").read_text()
    assert "GPU 1 reported XID 63 at 15 s." in page
    assert "GPU slowed down by heat or hardware" in page
    assert "Dashed: an XID." in page
    assert "GPU 1, by heat" in page
    assert "1 more lost" in page
