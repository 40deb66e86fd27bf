"""A disk that somebody else fills while a model is trained on it: training goes on, and when there is room all records are there."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from ncdemo.spec import TrainSpec, dump_spec  # noqa: E402
from ncdemo.spec.result import RunRecord, StepRecord  # noqa: E402
from tests.full_disk import Disk, small_disk  # noqa: E402

pytestmark = pytest.mark.timeout(600)  # whole runs, three in one test where it goes on

STEPS = 32
"""A file's last page takes lines after its disk is full: a dozen steps' records."""
TRAIN = """
import json, os, sys
from pathlib import Path
from tests.full_disk import Disk
from workloads import room, run
from workloads.metrics import lines
from workloads.training.accelerate.__main__ import make
from workloads.training.core import fit, main, strategy

folder, disk, full, freed, wait_s = Path(sys.argv[2]), Disk(Path(sys.argv[3])), *json.loads(sys.argv[4])
lines.AGAIN_S = room.AGAIN_S = 0.01
room.WAIT_S = run.WAIT_S = wait_s
plain = fit.take_step

def take_step(number, *rest):
    if number == freed:
        print("AT STEP", number, sorted(p.name for p in (folder / "checkpoints").iterdir()), (folder / "steps.jsonl").read_text().count("\\n"))
        disk.free()
    if number == full:
        disk.fill()
    return plain(number, *rest)

fit.take_step = take_step
del sys.argv[3:]
run.main_guard(lambda: main.run_rank(make))
"""


@pytest.fixture(scope="module")
def spec(tiny_model: Path) -> TrainSpec:
    return TrainSpec.model_validate_json(json.dumps({
        "model": {"name": str(tiny_model)}, "data": {"train_examples": 40, "eval_examples": 4, "max_seq_len": 64},
        "train": {"max_steps": STEPS, "micro_batch_size": 1, "learning_rate": 0.01, "precision": "fp32"},
        "eval": {"exact_match_examples": 0}, "checkpoint": {"every_steps": 6, "keep": 1, "asynchronous": False},
        "telemetry": {"sample_hz": 20.0, "mlflow_uri": None},
    }))  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(spec: TrainSpec, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    done, folder = train(spec, tmp_path_factory.mktemp("undisturbed"), full=None, freed=None)
    assert done.returncode == 0, done.stderr
    return losses(folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", mib=200) as disk:
        yield disk


def train(spec: TrainSpec, disk: Path, full: int | None, freed: int | None, wait_s: float = 60.0):
    """Train in a folder of a disk that is filled before one step and freed before another."""
    folder = disk / "run"
    folder.mkdir(exist_ok=True)
    if not (folder / "spec.yaml").exists():
        (folder / "spec.yaml").write_text(dump_spec(spec))
    command = [sys.executable, "-c", TRAIN, "--run", str(folder), str(disk), json.dumps([full, freed, wait_s])]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "NCDEMO_EXIT_FILE": str(folder / ".exit")}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=env), folder


def losses(folder: Path) -> list[float]:
    steps = [StepRecord.model_validate_json(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [s.step for s in steps] == list(range(1, STEPS + 1)), "all of them, in order, each once"
    return [s.loss for s in steps]


def test_training_goes_on_while_the_disk_is_full_and_all_records_are_there_when_it_has_room(
    disk: Disk, spec: TrainSpec, undisturbed: list[float]
) -> None:
    done, folder = train(spec, disk.path, full=8, freed=26)
    assert done.returncode == 0, done.stderr
    assert losses(folder) == undisturbed, "bit for bit"
    seen = re.search(r"AT STEP 26 \['step-00000006'\] (\d+)", done.stdout)
    assert seen, "the last good checkpoint is kept, and no part of a later one takes room"
    written = int(seen[1])
    assert 7 <= written < 22
    said = done.stderr.splitlines()
    failed = [line for line in said if "could not be written (OSError: [Errno 28]" in line]
    assert [("WARNING" in line, re.search(r"of step (\d+)", line)[1]) for line in failed] == [(True, "12"), (False, "18"), (False, "24")]
    assert f"Free some space in {folder}/checkpoints or set checkpoint.keep lower: the next checkpoint tries again" in failed[0]
    assert any("checkpoints have room again at step 30; without one: steps 12, 18, 24" in line for line in said)
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step-00000032"]
    record = RunRecord.model_validate_json((folder / "result.json").read_text())
    (full,) = record.disk_full
    assert (record.status, full.file, full.lost, full.why) == ("finished", "steps.jsonl", 0, "No space left on device")
    assert full.held == 26 - written, "until the step that found room"
    steps = [StepRecord.model_validate_json(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert steps[written].end_s < full.start_s < steps[written + 1].end_s
    assert steps[25].end_s < full.end_s < steps[26].end_s
    assert sum("steps.jsonl: No space left on device; free some space" in line for line in said) == 1
    assert sum(f"there is room again after {full.end_s - full.start_s:.1f} s; {full.held} lines were held" in line for line in said) == 1
    ticks = [tick for line in (folder / "samples.jsonl").read_text().splitlines() if (tick := json.loads(line).get("tick")) is not None]
    assert ticks == sorted(set(ticks))
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == [], "nothing of ours is left over"


def test_a_disk_that_stays_full_ends_in_one_error_that_says_what_is_lost_and_the_same_command_goes_on(
    disk: Disk, spec: TrainSpec, undisturbed: list[float]
) -> None:
    done, folder = train(spec, disk.path, full=8, freed=None, wait_s=0.5)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert (done.returncode, len(errors), "Traceback" in done.stderr) == (1, 1, False), done.stderr
    record = RunRecord.model_validate_json((folder / "result.json").read_text())
    assert record.status == "failed"
    assert f"{folder}/model: the trained model could not be written" in record.reason
    assert "free some space and start the same command again: it goes on from the newest checkpoint, which is kept" in record.reason
    assert errors == [f"Error: {record.reason}"]
    assert losses(folder) == undisturbed, "the reserve had room for what was held"
    assert [(o.file, o.lost) for o in record.disk_full] == [("steps.jsonl", 0)]
    assert record.disk_full[0].held >= 10
    assert (folder / ".exit").read_text() == "1\n"
    disk.free()
    done, _ = train(spec, disk.path, full=None, freed=None)
    assert done.returncode == 0, done.stderr
    assert "going on from step 6" in done.stderr
    assert losses(folder) == undisturbed
    assert RunRecord.model_validate_json((folder / "result.json").read_text()).status == "finished"
    assert (folder / "model" / "model.safetensors").exists()


def test_a_run_that_begins_on_a_full_disk_says_so_in_one_line(disk: Disk, spec: TrainSpec) -> None:
    folder = disk.path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(spec))
    disk.fill()
    done, _ = train(spec, disk.path, full=None, freed=None)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "No space left on device; free some space, or set NCDEMO_RUNS to a folder on a disk with room" in done.stderr


def test_a_model_that_does_not_fit_waits_for_room(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from workloads.training.core.strategy import save_model

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    with small_disk(tmp_path / "disk", mib=40) as disk:
        disk.fill()
        monkeypatch.setattr("workloads.room.time.sleep", lambda _: disk.free() if (disk.path / "somebody-elses").exists() else None)
        save_model(model, tokenizer, disk.path / "model")
        assert [p.name for p in disk.path.iterdir()] == ["model"]
        again = AutoModelForCausalLM.from_pretrained(disk.path / "model").state_dict()
        assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
