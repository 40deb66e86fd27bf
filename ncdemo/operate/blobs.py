"""The copies of runs in Blob storage: which there are, and what they hold. Identity alone, no keys.

    with Blobs("stncdemo1a2b3c") as blobs:
        blobs.runs()

AZURE_STORAGE_CONNECTION_STRING, where set, wins: emulators need it.
"""

import datetime
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from ncdemo.operate.job import Job, State, Unreachable
from ncdemo.spec.base import SpecError
from ncdemo.spec.job import NCDEMO_STORAGE_ACCOUNT
from ncdemo.spec.run_folder import LOG_FILE, METRICS, RESULT_FILE, RESULTS, RUN_COMMANDS_FOLDER, is_copied

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
HASHED = re.compile(r"(.+)-[0-9a-f]{10}")
RANGE_BYTES = 4 << 20
"""Azure computes the MD5 of a range up to this, the SDK's own way to check what arrives."""
ENDED: tuple[State, ...] = ("finished", "failed", "interrupted")


@dataclass(frozen=True)
class StoredFile:
    name: str
    """In its run directory."""
    blob: str
    bytes: int
    etag: str


@dataclass(frozen=True)
class StoredRun:
    job: Job
    files: int
    bytes: int
    changed_at: str
    """UTC: when the newest file came."""


class Blobs:
    """A folder of runs in a container. Methods raise SpecError with what to do."""

    def __init__(self, account: str | None, uri: str = RESULTS) -> None:
        found = re.fullmatch(r"(?:az|abfss?)://([a-z0-9-]{3,63})/?(.*?)/*", uri)
        if not found:
            raise SpecError(f"results = {uri}: is not in Blob storage; give az://<container>/<folder>")
        self.container, self._root = found[1], found[2] and f"{found[2]}/"
        self.account, self._uri = account, f"az://{found[1]}/{self._root}".rstrip("/")
        self.shown = f"in {self._uri}" + (f" of account {account}" if account else "")
        self.listing = "ncdemo results ls"
        self._client, self._credential = _client(account, found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        if self._credential:
            self._credential.close()

    def runs(self) -> list[StoredRun]:
        """Return every run, the newest first."""
        groups: dict[str, list[Any]] = {}
        with self.asked():
            for blob in self._client.list_blobs(name_starts_with=self._root):
                run, _, name = blob.name[len(self._root) :].partition("/")
                if name:
                    groups.setdefault(run, []).append(blob)
            with ThreadPoolExecutor(8) as several:
                records = dict(zip(groups, several.map(self.record, groups), strict=True))
        changed = {blob.name[len(self._root) :]: blob.last_modified for blobs in groups.values() for blob in blobs}
        found = [
            StoredRun(
                job_of(name, records[name], again=_again(changed.get(f"{name}/{LOG_FILE}"), changed.get(f"{name}/{RESULT_FILE}"))),
                len(blobs),
                sum(blob.size for blob in blobs),
                max(blob.last_modified for blob in blobs).isoformat(),
            )
            for name, blobs in groups.items()
        ]
        return sorted(found, key=lambda run: run.changed_at, reverse=True)

    def jobs(self) -> list[Job]:
        return [run.job for run in self.runs()]

    def job(self, run: str) -> Job:
        """Return one run."""
        changed = [self._changed(f"{run}/{name}") for name in (LOG_FILE, RESULT_FILE)]
        return job_of(run, self.record(run), again=_again(*changed))

    def files(self, run: str) -> dict[str, list[StoredFile]]:
        """Return the files of a run, and of its further nodes, by folder. What isn't a run's file is left out."""
        found: dict[str, list[StoredFile]] = {}
        with self.asked():
            for blob in self._client.list_blobs(name_starts_with=f"{self._root}{run}"):
                folder, _, name = blob.name[len(self._root) :].partition("/")
                if re.fullmatch(re.escape(run) + r"(-node\d+)?", folder) and is_safe(name):
                    found.setdefault(folder, []).append(StoredFile(name, blob.name, blob.size, bare(blob.etag)))
        return found

    def record(self, run: str) -> dict[str, Any]:
        """Return a run's result.json; empty while there is none."""
        text = self.read(f"{run}/{RESULT_FILE}")
        with suppress(ValueError):
            data = json.loads(text or b"{}")
            return data if isinstance(data, dict) else {}
        return {}

    def log(self, folder: str, offset: int) -> bytes | None:
        """Return what a run's log has from an offset on; None while there is no log."""
        return self.read(f"{folder}/{LOG_FILE}", offset)

    def log_changed_at(self, run: str) -> datetime.datetime | None:
        """Return when the copy of a run's log came; None while there is none."""
        found: datetime.datetime | None = self._changed(f"{run}/{LOG_FILE}")
        return found

    def run_command_said(self, name: str) -> str:
        """Return what the run command that started a job on a VM said."""
        said = [self._read(f"{RUN_COMMANDS_FOLDER}/{name}.{end}") for end in ("out", "err")] if self.container == METRICS else []
        return b"".join(text for text in said if text).decode(errors="replace").strip()

    def read(self, name: str, offset: int = 0) -> bytes | None:
        """Return a file below the folder from an offset on; None when it isn't there."""
        return self._read(self._root + name, offset)

    def download(self, blob: str, **options: Any) -> Any:
        """Return Azure's own downloader of a blob; it keeps to the version that it begins with."""
        return self._client.download_blob(blob, **options)

    def state(self, blob: str) -> Any:
        """Return a blob's properties as Azure's own library has them."""
        return self._client.get_blob_client(blob).get_blob_properties()

    def range(self, blob: str, offset: int, length: int, etag: str) -> bytes:
        """Return a range of one version of a blob, checked. Raise ResourceModifiedError when the blob is another by now."""
        from azure.core import MatchConditions

        same = MatchConditions.IfNotModified
        part = self._client.download_blob(blob, offset, length, validate_content=True, etag=etag, match_condition=same)
        return bytes(part.readall())

    def _changed(self, name: str) -> Any:
        from azure.core.exceptions import ResourceNotFoundError

        with self.asked():
            try:
                return self._client.get_blob_client(self._root + name).get_blob_properties().last_modified
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", None) == "ContainerNotFound":
                    raise
                return None

    def _read(self, blob: str, offset: int = 0) -> bytes | None:
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        with self.asked():
            try:
                read: bytes = self._client.download_blob(blob, offset=offset or None).readall()
                return read
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", None) == "ContainerNotFound":
                    raise
                return None
            except HttpResponseError as error:
                if error.status_code == 416:  # nothing behind the offset
                    return b""
                raise

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Turn what Azure answers into one line with the remedy."""
        from azure.core.exceptions import AzureError, ServiceRequestError, ServiceResponseError

        try:
            yield
        except AzureError as error:
            kind = Unreachable if isinstance(error, ServiceRequestError | ServiceResponseError) else SpecError
            raise kind(f"results {self.shown}: {explain(error)}") from None


def job_of(name: str, record: dict[str, Any], *, again: bool = False) -> Job:
    """Return a run as its copy tells it. Without a result, or with one that is overtaken, it runs or was lost: the copy can't know."""
    status, hashed = record.get("status"), HASHED.fullmatch(name)
    group = hashed[1] if hashed else None
    if status not in ENDED or again:
        detail = "no result yet: it runs, or its node was lost" if not again else f"started again after it was {status}"
        return Job(name, "unknown", record.get("kind"), record.get("started_at"), detail, group=group)
    return Job(name, status, record.get("kind"), record.get("started_at"), record.get("reason") or "", group=group)


def _again(log: Any, result: Any) -> bool:
    """Say from when both came whether a result is that of an attempt before: of one attempt, it comes after the log."""
    return log is not None and result is not None and log > result


def is_safe(name: str) -> bool:
    """Say whether a blob's name is that of a file in a run directory, and leads nowhere else."""
    parts = name.split("/")
    return bool(name) and "\\" not in name and all(part not in ("", "..") and is_copied(part) for part in parts)


def bare(etag: str) -> str:
    """Return an ETag as both of Azure's answers have it: a list is without its quotes."""
    return etag.strip('"')


def explain(error: Exception) -> str:
    """Say what Azure's answer means and what to do about it."""
    from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

    code, status = getattr(error, "error_code", None), getattr(error, "status_code", None)
    if code == "AuthorizationPermissionMismatch":
        return "this identity may not read there; give it the role Storage Blob Data Reader on the account"
    if code == "ContainerNotFound":
        return "there is no such container; check the account's name, or start a job: it is made with the stack"
    if code == "AuthorizationFailure" or status == 403:
        return f"access is refused ({code or status}); check the account's firewall, this machine's clock, and the role Storage Blob Data Reader"
    if isinstance(error, ClientAuthenticationError):
        return "no identity that Azure accepts; log in with: az login"
    if isinstance(error, ServiceRequestError):
        return f"can't be reached ({_first_line(error)}); check the account's name and this machine's network"
    return f"{_first_line(error)}; try again, and see the account's state in the portal if it stays"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _client(account: str | None, container: str) -> tuple[Any, Any]:
    """Return the client of a container, and the credential to close with it."""
    from azure.storage.blob import ContainerClient, ExponentialRetry

    # Azure's own waits are 15 s and longer: too long for somebody who looks on.
    options: dict[str, Any] = {"retry_policy": ExponentialRetry(initial_backoff=0, increment_base=2, retry_total=3, random_jitter_range=1)}
    options |= {"connection_timeout": 10, "read_timeout": 60, "max_single_get_size": RANGE_BYTES, "max_chunk_get_size": RANGE_BYTES}
    if given := os.environ.get(CONNECTION_STRING):
        try:
            return ContainerClient.from_connection_string(given, container, **options), None
        except ValueError:
            raise SpecError(f"{CONNECTION_STRING}: is not a connection string; unset it to use your own identity (az login)") from None
    if not account:
        raise SpecError(f"no storage account is named; give --account, --stack, or set {NCDEMO_STORAGE_ACCOUNT}")
    if not re.fullmatch(r"[a-z0-9]{3,24}", account):
        raise SpecError(f"storage account {account!r}: must be 3 to 24 lower-case letters and digits; give its name alone, no address")
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential()
    return ContainerClient(f"https://{account}.blob.core.windows.net", container, credential, **options), credential
