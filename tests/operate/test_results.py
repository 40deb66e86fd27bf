"""Runs in a real blob service: listed, fetched whole however often that is cut off, also while a job writes them."""

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ncdemo.operate.blobs import Blobs, is_safe
from ncdemo.operate.pull import file_md5, pull
from ncdemo.spec import SpecError

ROOT = Path(__file__).resolve().parents[2]
RECORD = {"kind": "train", "status": "finished", "reason": None, "started_at": "2026-01-01T00:00:00.000+00:00", "schema_version": 1}
RUN = "tune-0123456789"
COPY = """
import pathlib, sys, types
from workloads.storage import Storage
from workloads.upload import Mirror
mirror = Mirror(pathlib.Path(sys.argv[1]), Storage("az://metrics/jobs"))
mirror.start()
assert mirror.finish(types.SimpleNamespace(since=None, at_once=False))
"""


@pytest.fixture
def stored(azurite: Any, tmp_path: Path) -> Path:
    """A run of 60 MB in many files, copied by the workloads' own mirror."""
    folder = tmp_path / "there" / RUN
    for n in range(30):
        path = folder / ("model" if n % 2 else "") / f"part-{n:02}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(2_000_000))
    (folder / "model" / "large").write_bytes(os.urandom(9_000_001))
    (folder / "log.txt").write_text("learning\n")
    (folder / ".exit").write_text("1\n")
    (folder / "empty").touch()
    (folder / "result.json").write_text(json.dumps(RECORD))
    env = os.environ | {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    subprocess.run([sys.executable, "-c", COPY, str(folder)], env=env, cwd=ROOT, check=True, timeout=60)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): file_md5(path) for path in files}


def test_a_pull_that_is_killed_goes_on_and_fetches_nothing_twice(ncdemo: Any, azurite: Any, stored: Path, until: Any) -> None:
    env = {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    listed = json.loads(ncdemo.here("results", "ls", "--json", **env))
    assert [(run["name"], run["state"], run["kind"], run["files"], run["bytes"]) for run in listed] == [
        (RUN, "finished", "train", 34, 69_000_010 + len(json.dumps(RECORD)))
    ]
    target = ncdemo.runs / RUN
    notes = target / ".pulled"
    cut = ncdemo.start("results", "pull", "tune", **env)
    until(lambda: notes.exists() and notes.read_text().count("\n") > 4)
    cut.send_signal(signal.SIGKILL)
    cut.communicate(timeout=30)
    assert not (target / "result.json").exists(), "it comes last"
    noted = [json.loads(line)["name"] for line in notes.read_text().splitlines() if line.endswith("}")]
    before = {target / name: (target / name).stat().st_mtime_ns for name in noted}
    assert 0 < len(before) < 34
    (target / ".part-99.part").write_bytes(b"torn")
    torn = target / noted[-1]
    torn.write_bytes(torn.read_bytes()[:-1] + b"?")
    assert ncdemo("results", "pull", "tune", **env) == f"{target}\n"
    assert contents(target) == contents(stored)
    assert f"{34 - len(noted) + 1} files fetched" in ncdemo.err
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in before.items() if path != torn)
    ncdemo.here("results", "pull", "tune", **env)
    assert "0 files fetched, 0.0 MB; 34 were there" in ncdemo.err


def test_weights_carry_a_checksum_and_stay_there_for_a_report(ncdemo: Any, azurite: Any, stored: Path) -> None:
    env = {"NCDEMO_STORAGE_ACCOUNT": "unused", "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    with azurite_client(azurite) as client:
        told = client.get_blob_client(f"jobs/{RUN}/model/large").get_blob_properties().content_settings.content_md5
    assert bytes(told) == file_md5(stored / "model" / "large")
    page = Path(ncdemo.here("results", "report", "tune", **env).strip())
    assert page == ncdemo.runs / RUN / "report.html"
    assert page.read_text().startswith("<!doctype html>")
    assert not (page.parent / "model").exists()
    (ncdemo.runs / "elsewhere" / RUN).mkdir(parents=True)
    (ncdemo.runs / "elsewhere" / RUN / "spec.yaml").touch()
    said = ncdemo.mistake("results", "pull", RUN, "-o", str(ncdemo.runs / "elsewhere"), **env)
    assert said.endswith("is a run of this machine, not a copy that was pulled; give another folder with -o")


def test_a_run_is_fetched_while_it_is_written(azurite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    ending, line = threading.Event(), b"x" * 99 + b"\n"

    def write() -> None:
        client, text = azurite_client(azurite), line * 60_000
        with client:
            while not ending.is_set():
                text += line
                client.upload_blob("jobs/grows/log.txt", text, overwrite=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with Blobs(None) as blobs:
            while not blobs.jobs():
                pass
            assert blobs.jobs()[0].detail == "no result yet: it runs, or its node was lost"
            seen = []
            for _ in range(4):
                try:
                    pulled = pull(blobs, "grows", tmp_path, weights=True, progress=lambda done, total: seen.append((done, total)))
                except SpecError:  # changed five times; on to the next
                    continue
                assert not pulled.has_result
                text = (tmp_path / "grows" / "log.txt").read_bytes()
                assert set(text.split(b"\n")) == {line.strip(), b""}, "one version, whole"
    finally:
        ending.set()
        writer.join()
    with Blobs(None) as blobs:
        azurite_upload(azurite, "jobs/grows/result.json", b"{}")
        assert pull(blobs, "grows", tmp_path, weights=True, progress=lambda *_: None).has_result
    assert (tmp_path / "grows" / "log.txt").read_bytes() == azurite.blobs("metrics")["jobs/grows/log.txt"]


def azurite_client(azurite: Any) -> Any:
    from azure.storage.blob import ContainerClient

    return ContainerClient.from_connection_string(azurite.connection_string, "metrics")


def azurite_upload(azurite: Any, name: str, data: bytes, **options: Any) -> None:
    with azurite_client(azurite) as client:
        client.upload_blob(name, data, overwrite=True, **options)


def test_what_is_not_what_its_checksum_says_is_never_taken_for_whole(azurite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.storage.blob import ContentSettings

    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    azurite_upload(azurite, "jobs/run/model/x", b"right")
    with azurite_client(azurite) as client:
        wrong = ContentSettings(content_md5=bytearray(hashlib.md5(b"other").digest()))
        client.get_blob_client("jobs/run/model/x").set_http_headers(wrong)
    with Blobs(None) as blobs, pytest.raises(SpecError, match=r"model/x: the copy in storage isn't what its checksum says"):
        pull(blobs, "run", tmp_path, weights=True, progress=lambda *_: None)
    assert not (tmp_path / "run" / "model" / "x").exists()


def test_a_job_of_its_own_from_start_to_report(ncdemo: Any, azurite: Any, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("kind: bench\nengines: [echo]\nconcurrency: [1]\nprompts: {count: 4}\ntelemetry: {sample_hz: 0.0, mlflow_uri: null}\n")
    storage = {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    job = {"NCDEMO_JOB": RUN, "NCDEMO_RESULTS_URI": "az://metrics/jobs", "NCDEMO_RUNS": str(tmp_path / "node")}
    command = [sys.executable, "-m", "workloads.job", "--spec", str(spec)]
    subprocess.run(command, env={**os.environ, **storage, **job}, cwd=ROOT, check=True, capture_output=True, timeout=100)
    assert f"{RUN:<40} bench  finished" in ncdemo.here("results", "ls", **storage)
    assert Path(ncdemo.here("results", "report", "tune", **storage).strip()).stat().st_size > 10_000
    assert contents(ncdemo.runs / RUN).items() >= contents(tmp_path / "node" / RUN).items()


def test_what_goes_wrong_is_one_line_with_its_remedy(ncdemo: Any, azurite: Any) -> None:
    env = {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    assert "no runs in az://metrics/jobs" in (ncdemo.here("results", "ls", **env) or ncdemo.err)
    assert ncdemo.mistake("results", "pull", "tune", **env).endswith(
        "no job 'tune' in az://metrics/jobs: there are none; start one with: ncdemo train, ncdemo bench run or ncdemo stack up"
    )
    assert "there is no such container; check the account's name" in ncdemo.mistake("results", "ls", "--uri", "az://nothing/jobs", **env)
    assert "is not in Blob storage" in ncdemo.mistake("results", "ls", "--uri", "s3://bucket/jobs", **env)
    assert "give --account, --stack, or set NCDEMO_STORAGE_ACCOUNT" in ncdemo.mistake("results", "ls")
    assert "must be 3 to 24 lower-case letters and digits" in ncdemo.mistake("results", "ls", "--account", "https://x")
    assert "is not a connection string" in ncdemo.mistake("results", "ls", AZURE_STORAGE_CONNECTION_STRING="x")
    wrong_key = azurite.connection_string.replace(azurite.key, base64.b64encode(b"k" * 64).decode())
    assert "access is refused" in ncdemo.mistake("results", "ls", AZURE_STORAGE_CONNECTION_STRING=wrong_key)
    assert azurite.key not in ncdemo.err
    assert "the Pulumi CLI, which knows the stack's outputs, isn't installed" in ncdemo.mistake("results", "ls", "--stack", "aks-dev")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"BlobEndpoint=http://127.0.0.1:{free.getsockname()[1]}/x;AccountName=x;AccountKey={azurite.key}"
        assert "can't be reached" in ncdemo.mistake("results", "ls", AZURE_STORAGE_CONNECTION_STRING=nobody)


def test_names_that_lead_elsewhere_are_no_files_of_a_run() -> None:
    assert is_safe("model/weights.safetensors")
    assert not any(map(is_safe, ("", "../x", "a/../../x", "/etc/passwd", "a//b", ".pulled", "a\\b", "model/", "x.tmp", ".hidden/x")))
