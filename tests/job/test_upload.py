"""The copy of a run: its order, its patience, and a real blob service that goes away and comes back."""

import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from workloads.storage import Storage
from workloads.upload import Mirror

# A workload that writes evidence until a file tells it to end.
GROWS = """
import pathlib, sys, time
from ncdemo.spec import BenchSpec, load_spec
from workloads.run import main_guard, open_run, progress
folder = pathlib.Path(sys.argv[1])
def main():
    with open_run(folder, load_spec(folder / "spec.yaml", BenchSpec)):
        for n in range(10_000):
            with (folder / "requests.jsonl").open("a") as file:
                file.write(f'{{"n": {n}}}\\n')
            if (folder.parent / "end").exists():
                break
            time.sleep(0.02)
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_bytes(b"w" * 20_000_000)
main_guard(main)
"""
RUNNING = SimpleNamespace(since=None, at_once=False)
FAST = {"EVERY_S": 0.2, "LONGEST_WAIT_S": 0.5}


class Recorded(Storage):
    """A local folder that notes in which order files came, and fails where it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.as_uri())
        self.came: list[str] = []
        self.fails: set[str] = set()

    def put(self, path: Path, name: str, checksum: bool = False) -> None:
        self.came.append(name.removeprefix("run/"))
        if self.came[-1] in self.fails:
            raise OSError("no space left there")
        super().put(path, name, checksum)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    sizes = {"spec.yaml": 10, "log.txt": 30, "requests.jsonl": 20, "result.json": 5, "model/weights": 2, "checkpoints/step-1/weights": 1}
    sizes |= {".exit": 1, "half.tmp": 1, ".model.part/weights": 1, "model/.cache/x": 1}
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    return folder


def finish(mirror: Mirror, stop: SimpleNamespace = RUNNING) -> bool:
    mirror.start()
    return mirror.finish(stop)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def test_result_comes_last_so_that_its_presence_means_the_rest_is_there(run: Path, tmp_path: Path) -> None:
    storage = Recorded(tmp_path / "copy")
    assert finish(Mirror(run, storage))
    assert storage.came == ["spec.yaml", "requests.jsonl", "log.txt", "checkpoints/step-1/weights", "model/weights", "result.json"]
    assert (tmp_path / "copy" / "run" / "model" / "weights").read_bytes() == b"xx"


def test_when_stopped_all_evidence_comes_before_the_weights(run: Path, tmp_path: Path) -> None:
    storage = Recorded(tmp_path / "copy")
    assert finish(Mirror(run, storage), SimpleNamespace(since=time.monotonic(), at_once=False))
    assert storage.came == ["spec.yaml", "requests.jsonl", "log.txt", "result.json", "checkpoints/step-1/weights", "model/weights"]


def test_meanwhile_changed_evidence_is_copied_again_and_nothing_else(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.upload.EVERY_S", 0.05)
    storage = Recorded(tmp_path / "copy")
    mirror = Mirror(run, storage)
    mirror.start()
    until(lambda: len(storage.came) == 3)
    with (run / "requests.jsonl").open("a") as file:
        file.write("more")
    until(lambda: len(storage.came) == 4)
    time.sleep(0.2)
    assert storage.came == ["spec.yaml", "requests.jsonl", "log.txt", "requests.jsonl"]
    assert mirror.finish(RUNNING)
    assert storage.came[4:] == ["checkpoints/step-1/weights", "model/weights", "result.json"]


def test_one_file_that_fails_holds_up_the_result_alone(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.upload.FINAL_TRIES", 2)
    storage = Recorded(tmp_path / "copy")
    storage.fails = {"log.txt"}
    assert not finish(Mirror(run, storage))
    assert sorted(os.listdir(tmp_path / "copy" / "run")) == ["checkpoints", "model", "requests.jsonl", "spec.yaml"]
    storage.fails, storage.came = set(), []
    assert finish(Mirror(run, storage))
    assert storage.came[-1] == "result.json"


def test_a_checkpoint_that_made_room_is_no_failure(run: Path, tmp_path: Path) -> None:
    class Rotating(Recorded):
        def put(self, path: Path, name: str, checksum: bool = False) -> None:
            (run / "checkpoints" / "step-1" / "weights").unlink(missing_ok=True)
            super().put(path, name, checksum)

    assert finish(Mirror(run, Rotating(tmp_path / "copy")))


def test_storage_that_always_fails_costs_the_exit_code_and_nothing_else(jobs) -> None:
    jobs.copies.write_text("a file where the folder should be")
    (jobs.spec.parent / "runs").mkdir()
    (jobs.runs / "end").touch()
    code, said = jobs.run(code=GROWS, times={"FINAL_TRIES": 2})
    assert code == 1
    assert re.search(r"WARNING ncdemo\.job: file://\S+/copies/job/\S+: not copied, to be tried again \(\w+", said)
    assert re.search(r"ERROR ncdemo\.job: file://\S+/copies/job: not all results are there; what is missing stays in \S+/runs/job\. "
                     r"Check NCDEMO_RESULTS_URI .* then start the same job again", said)  # fmt: skip
    assert jobs.result()["status"] == "finished"
    assert (jobs.folder / "model" / "weights").stat().st_size == 20_000_000
    # As it says: started again it copies, and doesn't run.
    jobs.copies.unlink()
    before = (jobs.folder / "result.json").read_bytes()
    assert jobs.run(code="raise SystemExit('ran twice')")[0] == 0
    assert (jobs.copy / "result.json").read_bytes() == before


def test_a_finished_benchmark_is_whole_in_blob_storage(jobs, azurite, held: Callable, embedded: Path) -> None:
    code, said = jobs.run(uri="az://metrics/a/b/", AZURE_STORAGE_CONNECTION_STRING=azurite.connection_string)
    assert code == 0, said
    assert azurite.blobs("metrics") == {f"a/b/job/{name}": content for name, content in held(jobs.folder).items()}
    assert "Request" not in said, "the SDK's own log"
    assert azurite.key not in said
    code, said = jobs.run(uri="az://metrics/a/b/", AZURE_STORAGE_CONNECTION_STRING=azurite.connection_string)
    assert (code, "isn't run again" in said) == (0, True)


def test_blob_storage_that_goes_away_and_comes_back_has_everything_in_the_end(jobs, azurite, held: Callable) -> None:
    process = jobs.start(code=GROWS, times=FAST, uri="az://metrics/jobs", AZURE_STORAGE_CONNECTION_STRING=azurite.connection_string)
    log = jobs.folder / "log.txt"
    until(lambda: "jobs/job/requests.jsonl" in azurite.blobs("metrics"))
    azurite.stop()
    until(lambda: "requests.jsonl: not copied, to be tried again (ServiceRequestError" in log.read_text())
    lines = len((jobs.folder / "requests.jsonl").read_text().splitlines())
    until(lambda: len((jobs.folder / "requests.jsonl").read_text().splitlines()) > lines)  # the work goes on
    azurite.start()
    until(lambda: len(azurite.blobs("metrics")["jobs/job/requests.jsonl"].splitlines()) > lines)
    assert "jobs/job/result.json" not in azurite.blobs("metrics")
    (jobs.runs / "end").touch()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert azurite.blobs("metrics") == {f"jobs/job/{name}": content for name, content in held(jobs.folder).items()}


def test_blob_storage_that_returns_in_the_final_pass_still_gets_it_all(jobs, azurite, held: Callable) -> None:
    process = jobs.start(code=GROWS, times=FAST, uri="az://metrics/jobs", AZURE_STORAGE_CONNECTION_STRING=azurite.connection_string)
    until(lambda: (jobs.folder / "requests.jsonl").exists())
    azurite.stop()
    (jobs.runs / "end").touch()
    until(lambda: "copying results to" in (jobs.folder / "log.txt").read_text())
    until(lambda: "not copied" in (jobs.folder / "log.txt").read_text())
    azurite.start()
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert azurite.blobs("metrics") == {f"jobs/job/{name}": content for name, content in held(jobs.folder).items()}


def test_storage_that_hangs_holds_up_neither_the_work_nor_the_end(jobs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"BlobEndpoint=http://127.0.0.1:{silent.getsockname()[1]}/me;"
        secret = "c2VjcmV0IGtleQ=="
        process = jobs.start(
            code=GROWS, times={"EVERY_S": 0.1, "STOP_S": 3.0, "ASK_S": 1.0}, uri="az://metrics/jobs",
            AZURE_STORAGE_CONNECTION_STRING=f"DefaultEndpointsProtocol=http;AccountName=me;AccountKey={secret};{endpoint}",
        )  # fmt: skip
        until(lambda: (jobs.folder / "requests.jsonl").exists(), 40)
        time.sleep(0.5)
        start = time.monotonic()
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 75, said
    assert time.monotonic() - start < 4
    assert "can't be asked whether it has a result (FSTimeoutError)" in said
    assert "not all results are there" in said
    assert secret not in said
    assert json.loads((jobs.folder / "result.json").read_text())["status"] == "interrupted"
