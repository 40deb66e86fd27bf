"""Downloading from a hub on this machine: whole, killed, damaged, moved, missing, gated, out of reach."""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ncdemo.spec import SpecError
from workloads.data.download_dataset import DEFAULT, FALLBACK, download_dataset, main
from workloads.data.manifest import read_manifest

pytest.importorskip("huggingface_hub", reason="needs the hf extra")
from huggingface_hub import close_session, constants

_spec = importlib.util.spec_from_file_location("tests_data_hub", Path(__file__).with_name("hub.py"))
hub_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = hub_module
_spec.loader.exec_module(hub_module)

TRAIN = b'{"text": "one"}\n{"text": "two"}\n'
FILES = {"README.md": b"# A set\n", "train.jsonl": TRAIN, "data/test.jsonl": b'{"text": "three"}\n', "loader.py": b"1/0\n"}
MIB = 1 << 20
LARGE = (b'{"text": "' + b"x" * (1 << 16) + b'"}\n') * 352  # 22 MiB; http_get writes in blocks of 10 MiB
ID = "acme/set"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_module.serve() as hub:
        for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(key, raising=False)
        for key, value in {"HF_ENDPOINT": hub.url, "NCDEMO_CACHE": str(tmp_path), "NO_PROXY": "127.0.0.1,localhost"}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        close_session()
        yield hub
        close_session()


@pytest.fixture
def no_waiting(monkeypatch):
    """huggingface_hub waits between its tries; these tests needn't."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)


def test_fresh_download_fetches_data_files_and_writes_the_manifest(hub):
    commit = hub.add(ID, FILES)
    got = download_dataset(ID)
    assert (got.id, got.commit, got.fallback_from) == (ID, commit, None)
    assert {path.relative_to(got.folder).as_posix() for path in got.files} == {"README.md", "train.jsonl", "data/test.jsonl"}
    assert (got.folder / "train.jsonl").read_bytes() == TRAIN
    manifest = json.loads((got.folder / "manifest.json").read_text())
    assert (manifest["id"], manifest["requested_revision"], manifest["commit"]) == (ID, None, commit)
    sums = {file["name"]: (file["size"], file["sha256"]) for file in manifest["files"]}
    assert sums["train.jsonl"] == (len(TRAIN), hub_module.etags(TRAIN)[1])


def test_second_call_needs_no_network(hub):
    hub.add(ID, FILES)
    first = download_dataset(ID)
    hub.forget()
    assert download_dataset(ID) == download_dataset(ID, offline=True) == first
    assert download_dataset(ID, revision=first.commit, offline=True) == first
    assert hub.requests == []


def test_offline_without_a_copy_says_what_to_run(hub):
    with pytest.raises(SpecError, match=r"acme/set: offline.*--revision v1` once online, or set data.name: ncdemo-jobs"):
        download_dataset(ID, revision="v1", offline=True)


def test_offline_mode_of_the_hub_library_is_respected(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SpecError, match="HF_HUB_OFFLINE is set"):
        download_dataset(ID)


def test_killed_download_continues_where_it_was(hub, tmp_path):
    hub.add(ID, {"train.jsonl": TRAIN, "big.jsonl": LARGE}, lfs=("big.jsonl",))
    folder = tmp_path / "datasets" / "acme--set" / "default"
    hub.stall["big.jsonl"] = 21 * MIB
    process = subprocess.Popen([sys.executable, "-m", "workloads.data.download_dataset", ID], stdout=subprocess.DEVNULL)
    try:
        assert hub.stalled.wait(20)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and sum(path.stat().st_size for path in folder.glob(".partial/*")) < 20 * MIB:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert read_manifest(folder) is None
    with pytest.raises(SpecError, match="holds no whole copy"):
        download_dataset(ID, offline=True)
    assert hub.sent == [("train.jsonl", None), ("big.jsonl", None)]
    got = download_dataset(ID)
    assert hub.sent[2:] == [("big.jsonl", f"bytes={20 * MIB}-")]
    assert (got.folder / "big.jsonl").read_bytes() == LARGE
    assert not list(got.folder.glob(".partial/*"))


def test_cut_connection_continues_by_itself(hub, no_waiting):
    hub.add(ID, {"big.jsonl": LARGE}, lfs=("big.jsonl",))
    hub.cut["big.jsonl"] = 15 * MIB
    assert download_dataset(ID).files[0].read_bytes() == LARGE
    assert hub.encodings == {"identity"}
    assert hub.sent == [("big.jsonl", None), ("big.jsonl", f"bytes={10 * MIB}-")]


@pytest.mark.parametrize(("left", "asked"), [(TRAIN[:5], ["bytes=5-"]), (b"?" * 5, ["bytes=5-", None]), (TRAIN + b"more", [None])])
def test_partial_file_is_trusted_only_after_its_hash(hub, tmp_path, left, asked):
    hub.add(ID, {"train.jsonl": TRAIN})
    (partial := tmp_path / "datasets" / "acme--set" / "default" / ".partial").mkdir(parents=True)
    (partial / hub_module.etags(TRAIN)[0]).write_bytes(left)
    assert download_dataset(ID).files[0].read_bytes() == TRAIN
    assert hub.sent == [("train.jsonl", wanted) for wanted in asked]


def test_damaged_file_is_found_and_only_it_is_fetched_again(hub, caplog):
    hub.add(ID, FILES)
    got = download_dataset(ID)
    (got.folder / "train.jsonl").write_bytes(TRAIN.replace(b"one", b"0ne"))
    with pytest.raises(SpecError, match="holds no whole copy"):
        download_dataset(ID, offline=True)
    hub.forget()
    assert download_dataset(ID) == got
    assert "not what the manifest says: train.jsonl" in caplog.text
    assert (got.folder / "train.jsonl").read_bytes() == TRAIN
    assert hub.sent == [("train.jsonl", None)]


@pytest.mark.parametrize("manifest", [None, "", "{}", '{"id": "acme/set", "files": []}'])
def test_folder_without_a_valid_manifest_is_never_whole(hub, manifest):
    hub.add(ID, FILES)
    got = download_dataset(ID)
    (got.folder / "manifest.json").unlink()
    if manifest is not None:
        (got.folder / "manifest.json").write_text(manifest)
    with pytest.raises(SpecError, match="holds no whole copy"):
        download_dataset(ID, offline=True)
    hub.forget()
    assert download_dataset(ID) == got
    assert hub.sent == []  # the files are right by their hashes


def test_moved_branch_does_not_move_what_was_downloaded(hub):
    old = hub.add(ID, {"train.jsonl": TRAIN}, commit="a")
    first = download_dataset(ID)
    new = hub.add(ID, {"train.jsonl": b'{"text": "new"}\n'}, commit="b")
    assert download_dataset(ID) == first
    first.files[0].unlink()
    assert download_dataset(ID).commit == old
    assert first.files[0].read_bytes() == TRAIN
    second = download_dataset(ID, revision=new)
    assert (second.commit, second.files[0].read_bytes()) == (new, b'{"text": "new"}\n')
    assert download_dataset(ID, revision=old, offline=True) == first


def test_branch_is_resolved_to_a_commit_before_files_are_fetched(hub):
    hub.add(ID, {"train.jsonl": b"{}\n"}, commit="a")
    commit = hub.add(ID, {"train.jsonl": TRAIN}, commit="b", branch="refs/pr/1")
    got = download_dataset(ID, revision="refs/pr/1")
    assert (got.commit, got.files[0].read_bytes()) == (commit, TRAIN)
    assert all(commit in path for _, path, _ in hub.requests if "/resolve/" in path)


def test_files_of_an_older_attempt_are_removed(hub, tmp_path):
    hub.add(ID, {"train.jsonl": TRAIN})
    (folder := tmp_path / "datasets" / "acme--set" / "default").mkdir(parents=True)
    (folder / "gone.jsonl").write_bytes(TRAIN)
    assert download_dataset(ID).files == (folder / "train.jsonl",)
    assert not (folder / "gone.jsonl").exists()


@pytest.mark.parametrize("status", [404, 401])
def test_default_that_does_not_exist_falls_back_loudly(hub, status, caplog):
    hub.missing_status = status
    commit = hub.add(FALLBACK, FILES)
    got = download_dataset(DEFAULT)
    assert (got.id, got.commit, got.fallback_from) == (FALLBACK, commit, DEFAULT)
    assert f"{DEFAULT} IS NOT ON THE HUB (or is private): USING {FALLBACK} INSTEAD" in caplog.text
    assert read_manifest(got.folder).fallback_from == DEFAULT
    caplog.clear()
    hub.forget()
    assert download_dataset(DEFAULT, offline=True) == got
    assert "IS NOT ON THE HUB" in caplog.text
    assert hub.requests == []
    assert download_dataset(FALLBACK).fallback_from is None


def test_damaged_fallback_is_fetched_again_as_the_fallback(hub):
    hub.add(FALLBACK, FILES)
    got = download_dataset(DEFAULT)
    got.files[0].unlink()
    assert download_dataset(DEFAULT) == got


def test_default_that_exists_is_used(hub):
    hub.add(DEFAULT, FILES)
    hub.add(FALLBACK, {"train.jsonl": b"{}\n"})
    assert download_dataset(DEFAULT).fallback_from is None


def test_no_fallback_for_a_revision_of_the_default(hub):
    hub.add(FALLBACK, FILES)
    with pytest.raises(SpecError, match=r"data.revision = v1: 127.0.0.1:\d+ has no data set .*belle.*remove data.revision"):
        download_dataset(DEFAULT, revision="v1")


def test_neither_default_nor_fallback(hub):
    with pytest.raises(SpecError, match=rf"has neither it nor {FALLBACK}.*check HF_ENDPOINT"):
        download_dataset(DEFAULT)


@pytest.mark.parametrize("status", [404, 401])
def test_other_missing_data_set_is_an_error(hub, status):
    hub.missing_status = status
    hub.add(FALLBACK, FILES)
    with pytest.raises(
        SpecError, match=r"acme/set: 127.0.0.1:\d+ has no such data set; check the spelling; if it is private, set HF_TOKEN"
    ):
        download_dataset(ID)


@pytest.mark.parametrize("status", [500, 503, 403])
def test_hub_in_trouble_is_no_reason_for_the_fallback(hub, status):
    hub.unready = status
    with pytest.raises(
        SpecError, match=rf"127.0.0.1:\d+ answered HTTP {status}; try later \(it continues\), or set data.name: ncdemo-jobs"
    ):
        download_dataset(DEFAULT)
    assert len(hub.requests) == 1


def test_unreachable_hub_is_named_and_is_no_reason_for_the_fallback(hub, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", f"http://user:hunter2@{host}")
        with pytest.raises(SpecError) as caught:
            download_dataset(DEFAULT)
    assert f"{host} could not be reached (ConnectError" in str(caught.value)
    assert "HF_ENDPOINT" in str(caught.value)
    assert "data.name: ncdemo-jobs, which needs no network" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_unreachable_cdn_is_named_not_the_hub(hub, no_waiting):
    hub.add(ID, {"train.jsonl": TRAIN}, lfs=("train.jsonl",))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"localhost:{closed.getsockname()[1]}"
        hub.cdn_url = f"http://{host}"
        with pytest.raises(SpecError, match=f"{host} could not be reached") as caught:
            download_dataset(ID)
    assert "Signature" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["no-scheme", "http://[", "http://127.0.0.1:99999"])
def test_useless_endpoint_is_explained(hub, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(SpecError, match="HF_ENDPOINT"):
        download_dataset(ID)


def test_login_page_of_a_proxy_is_explained(hub):
    hub.page = b"<html>Please log in</html>"
    with pytest.raises(SpecError, match=r"127.0.0.1:\d+ did not answer like a Hugging Face hub .*a login page"):
        download_dataset(ID)


def test_gated_data_set_says_how_to_get_in(hub):
    hub.add(ID, FILES, gated=True)
    with pytest.raises(SpecError, match=r"gated \(HTTP 403\); accept its terms on http://127.0.0.1:\d+/datasets/acme/set and set HF_TOKEN"):
        download_dataset(ID)


def test_missing_revision(hub):
    hub.add(ID, FILES)
    with pytest.raises(SpecError, match=r"data.revision = v9: 127.0.0.1:\d+ has acme/set, but no such branch, tag or commit"):
        download_dataset(ID, revision="v9")


def test_token_goes_to_the_hub_alone_and_is_never_shown(hub, monkeypatch, capfd, caplog):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    caplog.set_level("DEBUG")
    hub.add(ID, {"train.jsonl": TRAIN}, lfs=("train.jsonl",))
    assert main([ID, "--json"]) == 0
    assert main(["acme/other"]) == 1
    assert hub.tokens == {("127.0.0.1", "Bearer hf_secret"), ("localhost", None)}
    out = capfd.readouterr()
    assert json.loads(out.out)["id"] == ID
    assert "has no such data set" in out.err
    assert "hf_secret" not in out.out + out.err + caplog.text + (download_dataset(ID).folder / "manifest.json").read_text()


def test_invalid_token_is_not_taken_for_a_missing_data_set(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    hub.add(FALLBACK, FILES)
    with pytest.raises(SpecError, match="answered HTTP 401; HF_TOKEN is not valid: renew or unset it"):
        download_dataset(DEFAULT)


def test_content_that_does_not_match_its_hash_is_refused(hub):
    hub.add(ID, {"train.jsonl": TRAIN})
    hub.spoil = True
    with pytest.raises(SpecError, match=r"train.jsonl: .* sent twice what does not match its own hash"):
        download_dataset(ID)
    with pytest.raises(SpecError, match="holds no whole copy"):
        download_dataset(ID, offline=True)


def test_hub_without_hashes_is_refused(hub):
    hub.add(ID, {"train.jsonl": TRAIN})
    hub.no_etag = True
    with pytest.raises(SpecError, match="gives no hash"):
        download_dataset(ID)


def test_repository_without_data_files(hub):
    hub.add(ID, {"README.md": b"", "train.csv": b"a", "dataset_infos.json": b"{}", ".cache/x.json": b"[]"})
    with pytest.raises(SpecError, match=r"no data file \(.json .jsonl .parquet\) in it, only .csv, .json, .md; convert it"):
        download_dataset(ID)


@pytest.mark.parametrize("name", ["../../evil.json", "/evil.json", "a\\..\\evil.json"])
def test_file_that_would_leave_the_folder_is_refused(hub, name):
    hub.add(ID, {name: b"[]"})
    with pytest.raises(SpecError, match="would leave its folder"):
        download_dataset(ID)


@pytest.mark.parametrize("name", ["", "..", "a/b/c", "../x", "a b", "-x"])
def test_name_that_is_no_id(hub, name):
    with pytest.raises(SpecError, match="not a hub data set id; it must look like owner/name"):
        download_dataset(name)


def test_name_that_the_hub_library_refuses(hub):
    with pytest.raises(SpecError, match=r"data.name = a--b: Cannot have -- or \.\."):
        download_dataset("a--b")


def test_folder_that_cannot_be_written(hub, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NCDEMO_CACHE", str(tmp_path / "file"))
    with pytest.raises(SpecError, match=r"cannot keep the data set there \(.*\); free space or set NCDEMO_CACHE"):
        download_dataset(ID)


def test_concurrent_callers_share_one_download(hub):
    hub.add(ID, FILES)
    got = []
    threads = [threading.Thread(target=lambda: got.append(download_dataset(ID))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == [got[0]] * 4
    assert sorted(hub.sent) == [("README.md", None), ("test.jsonl", None), ("train.jsonl", None)]


def test_main_prints_the_folder_on_stdout(hub, capsys):
    hub.add(ID, FILES)
    assert main([ID]) == 0
    assert main([ID, "--offline"]) == 0
    assert capsys.readouterr().out == f"{download_dataset(ID).folder}\n" * 2


def test_mirror_that_ignores_ranges(hub, tmp_path):
    hub.add(ID, {"train.jsonl": TRAIN})
    hub.no_range = True
    (partial := tmp_path / "datasets" / "acme--set" / "default" / ".partial").mkdir(parents=True)
    (partial / hub_module.etags(TRAIN)[0]).write_bytes(TRAIN[:9])
    assert download_dataset(ID).files[0].read_bytes() == TRAIN


def test_damaged_copy_and_no_network(hub, monkeypatch, caplog):
    hub.add(ID, FILES)
    download_dataset(ID).files[0].unlink()
    hub.unready = 503
    with pytest.raises(SpecError, match="answered HTTP 503"):
        download_dataset(ID)
    assert "not what the manifest says: train.jsonl" in caplog.text


def test_without_the_hub_library(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    with pytest.raises(SpecError, match=r"huggingface_hub is not installed; install ncdemo\[hf\], or set data.name: ncdemo-jobs"):
        download_dataset(ID)
