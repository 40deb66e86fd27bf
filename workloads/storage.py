"""Where results go: a folder in Azure blob storage, or in any other place that fsspec knows.

    storage = Storage("az://metrics/jobs")      # NCDEMO_STORAGE_ACCOUNT names the account
    storage.put(Path("runs/tune/log.txt"), "tune/log.txt")

Azure gets the machine's own identity (DefaultAzureCredential); AZURE_STORAGE_CONNECTION_STRING, where set, wins: emulators need it.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import NCDEMO_RESULTS_URI, NCDEMO_STORAGE_ACCOUNT
from ncdemo.spec.result import RunRecord
from workloads.metrics.redact import redact

LOG = logging.getLogger("ncdemo.job")
ASK_S = 20.0
"""Seconds to wait for a result that may be there."""
SMALL_BYTES = 8 << 20
BLOCKS = 16
"""Blocks of 4 MiB of a large file that are in memory and under way at once (adlfs: 128, half a GiB)."""


class Storage:
    """A folder of results; `shown` is its URI without secrets. Methods raise what the storage's own library does."""

    def __init__(self, uri: str, setting: str = NCDEMO_RESULTS_URI) -> None:
        """Take a URI, and the setting that it came from; nothing is sent yet. Raise SpecError when it can't work."""
        import fsspec

        self.shown = redact(uri.rstrip("/"))
        protocol = fsspec.utils.get_protocol(uri)
        self._azure = protocol in ("az", "abfs", "abfss")
        options: dict[str, Any] = {"auto_mkdir": True} if protocol in ("file", "local") else {}
        if self._azure:
            logging.getLogger("azure").setLevel(logging.WARNING)  # it logs every request
            account = os.environ.get(NCDEMO_STORAGE_ACCOUNT)
            options = {"account_name": account, "anon": False}
            if not account and not os.environ.get("AZURE_STORAGE_CONNECTION_STRING"):
                raise SpecError(f"{setting} = {self.shown}: the storage account is missing; set {NCDEMO_STORAGE_ACCOUNT} to its name")
        try:
            self._files, self._path = fsspec.core.url_to_fs(uri.rstrip("/"), **options)
        except (ValueError, ImportError) as error:
            raise SpecError(f"{setting} = {self.shown}: {short(error)}; give e.g. az://<container>/<folder>") from None
        if self._azure:
            _retry_soon(self._files)

    def put(self, path: Path, name: str, checksum: bool = False) -> None:
        """Copy a file to a name below the folder, over what is there. `checksum`: Azure is told its MD5, for who fetches it."""
        options: dict[str, Any] = {"max_concurrency": BLOCKS} if self._azure else {}
        if self._azure and checksum:
            with path.open("rb") as file:
                options["content_settings"] = {"content_md5": hashlib.file_digest(file, _md5).digest()}
        if self._azure and path.stat().st_size < SMALL_BYTES:
            # Azure's own retries wait 15 s and more each: good for a block of a large file. Small ones the mirror tries again.
            options["retry_total"] = 0
        self._files.put_file(str(path), f"{self._path}/{name}", **options)

    def record(self, run: str) -> RunRecord | None:
        """Return the result of a run directory's copy; None when there is none, or after a warning that storage doesn't say."""
        try:
            return RunRecord.model_validate_json(self._read(f"{self._path}/{run}/result.json"))
        except FileNotFoundError:
            return None
        except Exception as error:
            LOG.warning("%s/%s: can't be asked whether it has a result (%s); going on without", self.shown, run, short(error))
            return None

    def read(self, name: str) -> bytes:
        """Return a small file below the folder. Raise FileNotFoundError when it isn't there."""
        return self._read(f"{self._path}/{name}")

    def get(self, name: str, path: Path) -> None:
        """Copy what a name below the folder holds to a file."""
        self._files.get_file(f"{self._path}/{name}", str(path))

    @property
    def container(self) -> str:
        """The first part of the path: in Azure, what roles are given on."""
        return str(self._path.strip("/").partition("/")[0] if self._azure else self._path)

    def entries(self) -> int:
        """Return how many entries the container has at its top, asked of storage now."""
        self._files.invalidate_cache()
        return len(self._files.ls(self.container, detail=False))

    def names(self, folder: str) -> list[str]:
        """Return the names of all files below a folder of ours, relative to it; none when there is no such folder."""
        self._files.invalidate_cache()  # others write here too
        root = f"{self._path}/{folder}"
        try:
            return [path[len(root) :].lstrip("/") for path in self._files.find(root)]
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        try:
            self._files.rm(f"{self._path}/{name}", recursive=True)
        except FileNotFoundError:
            return

    def _read(self, path: str) -> bytes:
        if not self._files.async_impl:
            return bytes(self._files.cat_file(path))
        from fsspec.asyn import sync

        return bytes(sync(self._files.loop, self._files._cat_file, path, timeout=ASK_S))


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)  # a check against torn transfers, no signature


def _retry_soon(files: Any) -> None:
    """Ask Azure again at once, after 2 and after 4 s. Its own client waits 15 s and more: half an eviction's notice. adlfs has no setting."""
    policy = files.service_client._config.retry_policy
    policy.initial_backoff, policy.increment_base, policy.random_jitter_range = 0, 2, 0.5


def short(error: Exception) -> str:
    """Return an error in one line, without secrets."""
    lines = str(error).strip().splitlines()
    return redact(f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__)
