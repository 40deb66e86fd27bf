"""A run that was killed or told to stop goes on exactly where it was; a checkpoint that is torn is never taken for whole."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.train import TrainSpec
from workloads.training.accelerate.__main__ import Accelerate
from workloads.training.core.checkpoint import Checkpoints, newest, wanted
from workloads.training.core.host import HostCopy
from workloads.training.core.part import CHUNK, Part
from workloads.training.core.position import Position, read_position
from workloads.training.core.store import MANIFEST, LocalStore, digest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ncdemo_tests_{name}", ROOT / "tests" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def soak(*args: object, **env: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "kill_soak.py"), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), **env})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.usefixtures("embedded")
def test_two_ranks_killed_at_random_moments_end_bit_identical() -> None:
    assert "all ended bit-identical" in soak("--kills", 4, "--ranks", 2, "--steps", 16)


@pytest.mark.usefixtures("embedded")
def test_with_failing_storage_too(tmp_path: Path) -> None:
    """Checkpoints in a real blob service, where one request in twenty fails: an error, a reset, no answer, a slow one."""
    azurite = load("azurite")
    if not azurite.find():
        pytest.skip("Azurite is not installed; .ci/run brings it where npm is")
    with azurite.Azurite(tmp_path / "blobs") as service:
        service.container("checkpoints").close()
        own = service.connection_string.partition("BlobEndpoint=")[2].rstrip(";")
        upstream = own.rsplit("/", 1)[0]
        with load("fault_proxy").FaultProxy(upstream, share=0.05, seed=2) as proxy:
            connection = service.connection_string.replace(upstream, proxy.url)
            said = soak("--kills", 3, "--steps", 8, "--uri", "az://checkpoints/runs", AZURE_STORAGE_CONNECTION_STRING=connection)
        assert "all ended bit-identical" in said
        assert proxy.faults.total() > 0, f"{proxy.requests} requests and no fault"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "checkpoints")


@pytest.fixture
def checkpoints(store: LocalStore) -> Checkpoints:
    return Checkpoints(store, rank=0, world_size=1, keep=3)


def alone(values: list[int]) -> list[int]:
    return values


def writer(text: str) -> Callable[[Part], None]:
    def write(part: Part) -> None:
        (part.folder / "weights").write_text(text)
        (part.folder / "optimizer").write_text(text * 1000)

    return write


def make(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.begin(step, writer(f"of step {step}"))
        assert checkpoints.finish(alone)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no manifest", "half a manifest"])
def test_a_torn_checkpoint_is_passed_over(store: LocalStore, checkpoints: Checkpoints, damage: str) -> None:
    make(checkpoints, 2, 4)
    folder = store.root / "step-00000004"
    file, manifest = folder / "optimizer", folder / MANIFEST
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:-1])
        case "changed":
            file.write_bytes(b"x" + file.read_bytes()[1:])
        case "gone":
            file.unlink()
        case "no manifest":
            manifest.unlink()
        case "half a manifest":
            manifest.write_bytes(manifest.read_bytes()[:20])
    step, found = newest(store)
    assert (step, (found / "weights").read_text()) == (2, "of step 2")


def test_a_checkpoint_replaces_a_damaged_one_of_its_step(store: LocalStore, checkpoints: Checkpoints) -> None:
    make(checkpoints, 2)
    (store.root / "step-00000002" / "weights").unlink()
    assert newest(store) is None
    make(checkpoints, 2)
    assert newest(store)[0] == 2


def test_only_the_newest_are_kept(store: LocalStore, checkpoints: Checkpoints) -> None:
    make(checkpoints, 1, 2, 3, 4, 5)
    assert store.steps() == [5, 4, 3]
    assert sorted(p.name for p in store.root.iterdir()) == ["step-00000003", "step-00000004", "step-00000005"]


def test_a_failing_write_leaves_the_one_before(store: LocalStore, checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    def full(part: Part) -> None:
        (part.folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    make(checkpoints, 2)
    checkpoints.begin(4, full)
    assert not checkpoints.finish(alone)
    assert (
        "the checkpoint of step 4 could not be written (OSError: [Errno 28] No space left on device); the one before stays" in caplog.text
    )
    assert newest(store)[0] == 2
    make(checkpoints, 6)
    assert newest(store)[0] == 6


def test_a_rank_that_has_not_written_holds_the_commit_back(store: LocalStore) -> None:
    first, second = (Checkpoints(store, rank, world_size=2, keep=2) for rank in (0, 1))
    first.begin(2, writer("first's"))
    first._written.result()
    second.begin(2, lambda part: (part.folder / "generators").write_text("second's"))
    first.count(*first.votes())
    assert store.steps() == [], "one of two has voted"
    second._written.result()
    votes = [a + b for a, b in zip(first.votes(), second.votes(), strict=True)]
    second.count(*votes)
    first.count(*votes)
    first._committed.result()
    assert store.steps() == [2]
    assert set(store.manifest(2)["files"]) == {"weights", "optimizer", "generators"}


def test_resume_must_needs_a_checkpoint(store: LocalStore) -> None:
    with pytest.raises(SpecError, match=r"checkpoint\.resume = 'must': no whole checkpoint in .*; name the right run"):
        wanted(newest(store), "must", store)


def spec_with(**changes: Any) -> TrainSpec:
    return TrainSpec.model_validate_json(json.dumps(changes))


def test_another_spec_is_refused_with_the_difference(tmp_path: Path) -> None:
    Position(step=3).write(tmp_path, spec_with(train={"learning_rate": 0.1}), world_size=1)
    with pytest.raises(SpecError, match=r"step 3 is of another spec \(train\.learning_rate is 0\.1 there and 0\.2 here\); undo the change"):
        read_position(tmp_path, spec_with(train={"learning_rate": 0.2}), "here")
    same = spec_with(train={"learning_rate": 0.1, "processes": 2}, name="other", telemetry={"sample_hz": 5.0}, checkpoint={"keep": 7})
    assert read_position(tmp_path, same, "here") == (Position(step=3), 1)


def test_a_host_copy_keeps_its_memory_and_what_was_shared() -> None:
    copy, tensor = HostCopy(), torch.ones(4)
    tree = {"a": tensor, "b": [tensor, 3], "c": (torch.zeros(2),)}
    first = copy(tree)
    copy.before_change()
    tensor.add_(1)
    assert first["a"].tolist() == [1, 1, 1, 1]
    assert first["a"] is first["b"][0]
    again = copy(tree)
    copy.wait()
    assert again["a"].data_ptr() == first["a"].data_ptr()
    assert again["a"].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("where", ["disk", "/dev/shm"])
@pytest.mark.parametrize("more", [-2, 0, 5000])
def test_a_part_is_hashed_as_it_is_written(tmp_path: Path, where: str, more: int) -> None:
    """Files of less than a chunk, and of several that end within a page; on tmpfs too, which may know no direct writes."""
    if where != "disk" and not Path(where).is_dir():
        pytest.skip(f"no {where} here")
    tree = {"large": torch.arange(2 * CHUNK + more, dtype=torch.int64).to(torch.uint8), "none": torch.empty(0), "n": 3}
    with tempfile.TemporaryDirectory(dir=tmp_path if where == "disk" else where) as folder, Part(Path(folder)) as part:
        part.save("large.pt", tree)
        part.save("small.pt", {"n": 3})
        assert part.digests == {name: digest(part.folder / name) for name in ("large.pt", "small.pt")}
        found = torch.load(part.folder / "large.pt", weights_only=True)
    assert found["large"].equal(tree["large"])
    assert (found["none"].numel(), found["n"]) == (0, 3)


def test_a_part_says_that_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "full.pt").symlink_to("/dev/full")
    with Part(tmp_path) as part, pytest.raises(OSError, match="No space left on device"):
        part.save("full.pt", {"large": torch.zeros(3 * CHUNK, dtype=torch.uint8)})


@pytest.mark.usefixtures("embedded")
def test_an_update_waits_for_the_copy_and_the_checkpoint_has_what_was_before(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    model.save_pretrained = lambda folder, state_dict: torch.save(state_dict, folder / "weights.pt")
    strategy = Accelerate(spec_with(train={"precision": "fp32"}))
    forward = strategy.setup(model, torch.optim.AdamW(model.parameters(), fused=True))
    batch = torch.randn(8, 4)

    def step() -> None:
        strategy.backward(forward(batch).square().sum(), last=True)
        strategy.step(0.1, None)

    step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gate = threading.Event()
    strategy._host._thread.submit(gate.wait)  # a copy that takes long
    write = strategy.snapshot()
    stepping = threading.Thread(target=step)
    stepping.start()
    stepping.join(0.5)
    assert stepping.is_alive()
    assert model.state_dict()["0.weight"].equal(before["0.weight"])
    gate.set()
    stepping.join()
    with Part(tmp_path) as part:
        write(part)
    found, now = torch.load(tmp_path / "weights.pt", weights_only=True), model.state_dict()
    assert all(found[name].equal(before[name]) for name in before)
    assert not any(found[name].equal(now[name]) for name in ("0.weight", "1.running_mean"))
    assert torch.load(tmp_path / "optimizer.pt", weights_only=True)["state"][0]["step"] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_copy_from_a_gpu_is_of_the_moment_it_was_asked_for() -> None:
    copy, tensor = HostCopy(), torch.zeros(1 << 26, device="cuda")
    for n in range(3):
        copied = copy([tensor])
        copy.before_change()
        tensor.add_(1)
        copy.wait()
        assert copied[0].unique().tolist() == [n]
