"""A large file of a run: cut off in its middle it goes on there, through faults too; another version, or a damaged part, is never mixed in."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ncdemo.operate.blobs import RANGE_BYTES, Blobs
from ncdemo.operate.pull import pull
from ncdemo.spec import SpecError
from tests.fault_proxy import FaultProxy

RUN = "tune-0123456789"
BLOB = f"jobs/{RUN}/model/model.safetensors"
SIZE = 9 * RANGE_BYTES + 12_345


class Slow(FaultProxy):
    """So that there is a middle."""

    def forward(self, *request: Any) -> Any:
        time.sleep(0.15)
        return super().forward(*request)


@pytest.fixture
def weights(azurite: Any) -> bytes:
    data = os.urandom(SIZE)
    upload(azurite, data)
    return data


def upload(azurite: Any, data: bytes) -> None:
    from azure.storage.blob import ContainerClient

    with ContainerClient.from_connection_string(azurite.connection_string, "metrics") as client:
        client.upload_blob(BLOB, data, overwrite=True)


@pytest.fixture
def slow(azurite: Any, ncdemo: Any) -> Iterator[FaultProxy]:
    upstream = azurite.connection_string.partition("BlobEndpoint=")[2].rpartition("/")[0]
    with Slow(upstream, share=0) as proxy:
        ncdemo.env["AZURE_STORAGE_CONNECTION_STRING"] = azurite.connection_string.replace(upstream, proxy.url)
        yield proxy


def cut_off(ncdemo: Any, until: Any) -> tuple[Path, int]:
    """Pull, and kill it in the middle of the file; return the file's path and how many ranges were here."""
    path = ncdemo.runs / RUN / "model" / "model.safetensors"
    note = path.with_name(".model.safetensors.part.ranges")
    cut = ncdemo.start("results", "pull", RUN)
    until(lambda: note.exists() and note.read_text().count('"md5"') >= 3)
    cut.send_signal(signal.SIGKILL)
    cut.communicate(timeout=30)
    assert not path.exists()
    return path, note.read_text().count('"md5"')


def left(path: Path) -> list[str]:
    return [one.name for one in path.parent.iterdir()]


def test_it_goes_on_in_the_middle(ncdemo: Any, slow: FaultProxy, weights: bytes, until: Any) -> None:
    path, here = cut_off(ncdemo, until)
    assert 3 <= here < 9
    slow.body_bytes = 0
    ncdemo.here("results", "pull", RUN)
    assert path.read_bytes() == weights
    assert left(path) == ["model.safetensors"]
    missing = SIZE - here * RANGE_BYTES
    assert missing <= slow.body_bytes < missing + 100_000, "the lists of blobs beside it"


def test_a_part_that_was_damaged_is_fetched_again_there(ncdemo: Any, slow: FaultProxy, weights: bytes, until: Any) -> None:
    path, here = cut_off(ncdemo, until)
    part = path.with_name(".model.safetensors.part")
    note = path.with_name(part.name + ".ranges")
    at = json.loads(note.read_text().splitlines()[2])["at"]
    with part.open("r+b") as file:
        file.seek(at)
        file.write(b"power was cut here")
    note.write_text(note.read_text() + '{"at": 419')  # as was this line
    slow.body_bytes = 0
    ncdemo.here("results", "pull", RUN)
    assert path.read_bytes() == weights
    assert slow.body_bytes >= SIZE - (here - 1) * RANGE_BYTES


def test_another_version_begins_anew(ncdemo: Any, slow: FaultProxy, azurite: Any, weights: bytes, until: Any) -> None:
    path, _ = cut_off(ncdemo, until)
    newer = os.urandom(SIZE)
    upload(azurite, newer)
    slow.body_bytes = 0
    ncdemo.here("results", "pull", RUN)
    assert path.read_bytes() == newer
    assert slow.body_bytes >= SIZE
    assert left(path) == ["model.safetensors"]


def test_a_version_that_comes_meanwhile_is_fetched_whole(
    ncdemo: Any, slow: FaultProxy, azurite: Any, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", ncdemo.env["AZURE_STORAGE_CONNECTION_STRING"])
    newer, uploaded = os.urandom(SIZE + 1), []

    def progress(done: int, total: int) -> None:
        if done > 3 * RANGE_BYTES and not uploaded:
            uploaded.append(1)
            upload(azurite, newer)

    with Blobs(None) as blobs:
        pull(blobs, RUN, tmp_path, weights=True, progress=progress)
    assert (tmp_path / RUN / "model" / "model.safetensors").read_bytes() == newer
    assert uploaded


def test_through_faults_every_byte_is_right(azurite: Any, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = azurite.connection_string.partition("BlobEndpoint=")[2].rpartition("/")[0]
    with FaultProxy(upstream, share=0.3, seed=3) as proxy:
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string.replace(upstream, proxy.url))
        for _ in range(20):
            try:
                with Blobs(None) as blobs:
                    pull(blobs, RUN, tmp_path, weights=True, progress=lambda done, total: None)
                break
            except SpecError:  # cut off; the same again
                continue
        assert proxy.faults.total() > 2, proxy.faults
    assert (tmp_path / RUN / "model" / "model.safetensors").read_bytes() == weights


def test_what_is_not_what_its_checksum_says_is_never_taken_for_whole(
    azurite: Any, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.storage.blob import BlobClient, ContentSettings

    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    with BlobClient.from_connection_string(azurite.connection_string, "metrics", BLOB) as client:
        client.set_http_headers(ContentSettings(content_md5=bytearray(b"0" * 16)))
    with Blobs(None) as blobs, pytest.raises(SpecError, match="isn't what its checksum says; start the job again"):
        pull(blobs, RUN, tmp_path, weights=True, progress=lambda *_: None)
    assert list((tmp_path / RUN / "model").iterdir()) == []
