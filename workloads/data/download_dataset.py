"""Fetch a Hugging Face data set once, check every byte of it, and keep it for runs without a network.

Why not hf_hub_download alone: from huggingface_hub 1.18 on it begins a killed download again from zero (its issue
4196) and compares sizes, not hashes. So its API and http_get do the work, and this module adds partial files that are
continued, a hash of every file, and a manifest written last.

    python -m workloads.data.download_dataset philschmid/guanaco-sharegpt-style --json
"""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from ncdemo.spec import SpecError
from ncdemo.spec.common import SHIPPED_DATA
from ncdemo.spec.paths import cache_dir
from workloads.data.manifest import DATA_SUFFIXES, Manifest, ManifestFile, damaged, digests, read_manifest

log = logging.getLogger(__name__)

DEFAULT = "philschmid/guanaco-belle-7b"
FALLBACK = "philschmid/guanaco-sharegpt-style"
"""Stands in for DEFAULT, and for nothing else, where the hub says that DEFAULT doesn't exist."""
# JSON that describes a data set instead of being one; manifest.json is ours.
NOT_DATA = {"manifest.json", "dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
API_TIMEOUT_S = 30.0
REMEDY = f"or set data.name: {SHIPPED_DATA}, which needs no network"


@dataclass(frozen=True)
class Downloaded:
    """A data set on this disk whose files all have the checksums of its manifest."""

    folder: Path
    id: str
    commit: str
    fallback_from: str | None
    files: tuple[Path, ...]


def download_dataset(name: str, *, revision: str | None = None, offline: bool = False) -> Downloaded:
    """Return the data set from the cache, fetching what is missing. A cached one is verified and needs no network.

    `revision` is a branch, tag or commit (None: the default branch). What it meant at the first download stays:
    ask for a commit to get another. Raise SpecError, with the remedy, when the data set can't be had.
    """
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name, re.ASCII):
        raise SpecError(f"data.name = {name!r}: not a hub data set id; it must look like owner/name, e.g. {FALLBACK}")
    home = cache_dir() / "datasets" / name.replace("/", "--")
    folder = home / ("default" if revision is None else f"rev-{quote(revision, safe='')}")
    for candidate in dict.fromkeys((folder, *(path.parent for path in sorted(home.glob("*/manifest.json"))))):
        manifest = read_manifest(candidate)
        if manifest and (candidate == folder or (manifest.id, manifest.commit) == (name, revision)):
            bad = damaged(candidate, manifest)
            if not bad:
                return _result(candidate, manifest)
            log.warning("%s: not what the manifest says: %s", candidate, ", ".join(bad))
    if offline:
        raise SpecError(_offline(name, revision, folder))
    with _explained(name, revision, folder):
        from huggingface_hub.utils import WeakFileLock

        folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(home / f"{folder.name}.lock"):
            manifest = read_manifest(folder)
            if manifest is None or damaged(folder, manifest):
                manifest = _fetch(name, revision, folder, manifest)
    return _result(folder, manifest)


def _result(folder: Path, manifest: Manifest) -> Downloaded:
    if manifest.fallback_from:
        log.warning("%s IS NOT ON THE HUB (or is private): USING %s INSTEAD", manifest.fallback_from, manifest.id)
    files = tuple(folder / file.name for file in manifest.files)
    return Downloaded(folder, manifest.id, manifest.commit, manifest.fallback_from, files)


# Fetching -------------------------------------------------------------------------------------------------------------


def _fetch(name: str, revision: str | None, folder: Path, known: Manifest | None) -> Manifest:
    """Fetch what is missing or damaged, then write the manifest. `known` pins the commit of an earlier download."""
    if known:
        used, fallback_from = known.id, known.fallback_from
        commit, names = _listing(used, known.commit)
    else:
        used, fallback_from, commit, names = _resolve(name, revision)
    wanted = _wanted(names, used)
    sums = {path: _fetch_file(used, commit, path, folder) for path in wanted}
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in (*wanted, "manifest.json"):
            path.unlink()  # partial files, and files of a commit that an interrupted download aimed at
    manifest = Manifest(
        id=used,
        fallback_from=fallback_from,
        requested_revision=revision,
        commit=commit,
        fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=tuple(ManifestFile(name=path, size=(folder / path).stat().st_size, sha256=sums[path]) for path in wanted),
    )
    new = folder / "manifest.json.new"
    new.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    new.replace(folder / "manifest.json")
    return manifest


def _resolve(name: str, revision: str | None) -> tuple[str, str | None, str, list[str]]:
    """Return (id, fallback from, commit, file names), taking FALLBACK only where the hub answers that DEFAULT isn't there."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return (name, None, *_listing(name, revision))
    except HfHubHTTPError as error:
        if not _says_missing(error):
            raise
    private = "if it is private, set HF_TOKEN to a token that may read it"
    if name != DEFAULT:
        raise SpecError(f"data.name = {name}: {_host()} has no such data set; check the spelling; {private}")
    if revision is not None:
        raise SpecError(
            f"data.revision = {revision}: {_host()} has no data set {name}, and {FALLBACK}, which stands in for it, has other "
            f"revisions; remove data.revision, or name the data set you mean; {private}"
        )
    try:
        return (FALLBACK, name, *_listing(FALLBACK, None))
    except HfHubHTTPError as error:
        if not _says_missing(error):
            raise
    raise SpecError(f"data.name = {name}: {_host()} has neither it nor {FALLBACK}, which stands in for it; check HF_ENDPOINT, {REMEDY}")


def _listing(name: str, revision: str | None) -> tuple[str, list[str]]:
    """Ask the hub for the commit that the revision means now, and the names of its files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        info = HfApi(endpoint=_endpoint()).dataset_info(name, revision=revision, timeout=API_TIMEOUT_S)
        if not info.sha:
            raise KeyError("sha")
        return info.sha, [sibling.rfilename for sibling in info.siblings or []]
    except (HfHubHTTPError, HFValidationError):
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(
            f"data.name = {name}: {_host()} did not answer like a Hugging Face hub ({type(error).__name__}); "
            f"check HF_ENDPOINT and the proxy (a login page?), {REMEDY}"
        ) from None


def _wanted(names: list[str], used: str) -> list[str]:
    for path in map(PurePosixPath, names):
        if path.is_absolute() or ".." in path.parts or "\\" in str(path):
            raise SpecError(f"data.name = {used}: it has a file named {str(path)!r}, which would leave its folder; use another data set")
    visible = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    data = [name for name in visible if name.endswith(DATA_SUFFIXES) and name.rsplit("/", 1)[-1] not in NOT_DATA]
    if not data:
        found = ", ".join(sorted({PurePosixPath(name).suffix or name for name in visible})) or "nothing"
        raise SpecError(f"data.name = {used}: no data file ({' '.join(DATA_SUFFIXES)}) in it, only {found}; convert it, or use another")
    return data + [name for name in visible if name == "README.md"]


def _fetch_file(used: str, commit: str, name: str, folder: Path) -> str:
    """Bring one file to its verified state and return its sha256. A partial file is named by its content's hash."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(used, name, repo_type="dataset", revision=commit, endpoint=_endpoint())
    head = get_hf_file_metadata(url, endpoint=_endpoint(), retry_on_errors=True)
    if not head.etag or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", head.etag):
        raise SpecError(f"{name}: {_host()} gives no hash (ETag) to check it by; set HF_ENDPOINT to a hub that does")
    sums = digests(folder / name)
    if head.etag in sums:
        return sums[0]
    partial = folder / ".partial" / head.etag
    partial.parent.mkdir(exist_ok=True)
    for _ in range(2):  # a partial file that turns out wrong gets one fresh start
        with partial.open("ab") as file:
            have = file.tell()
            if head.size is not None and have > head.size:
                have = file.truncate(0)
            try:
                # Identity, for a range of a compressed answer is not a range of the file.
                headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
                http_get(url, file, resume_size=have, headers=headers, expected_size=head.size, displayed_filename=name)
            except OSError as error:
                if isinstance(error, HfHubHTTPError) or error.errno is not None:
                    raise
                log.warning("%s: %s", name, error)  # http_get's own complaint about the size; the hash decides
        sums = digests(partial)
        if head.etag in sums:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            partial.replace(folder / name)
            return sums[0]
        partial.unlink()
    raise SpecError(f"{name}: {_host()} sent twice what does not match its own hash {head.etag}; try later, or check HF_ENDPOINT")


# Saying what is wrong -------------------------------------------------------------------------------------------------


def _endpoint() -> str:
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _host(url: str | None = None) -> str:
    """Return host[:port], never what else a URL may carry (a password, a signature)."""
    return urlsplit(url or _endpoint()).netloc.rsplit("@", 1)[-1] or "HF_ENDPOINT"


def _says_missing(error: Any) -> bool:
    """Say whether the hub answered that the repository isn't there: 404, or to a request without a token 401."""
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RevisionNotFoundError

    if isinstance(error, GatedRepoError | RevisionNotFoundError | DisabledRepoError):
        return False
    return error.response.status_code in (401, 404) and not _token_refused(error)


def _token_refused(error: Any) -> bool:
    response = error.response
    sent = "Authorization" in response.request.headers
    return response.status_code == 401 and sent and response.headers.get("X-Error-Code") != "RepoNotFound"


def _offline(name: str, revision: str | None, folder: Path) -> str:
    again = f"python -m workloads.data.download_dataset {name}" + (f" --revision {revision}" if revision else "")
    return f"data.name = {name}: offline, and {folder} holds no whole copy; run `{again}` once online, {REMEDY}"


@contextmanager
def _explained(name: str, revision: str | None, folder: Path) -> Iterator[None]:
    """Turn every failure of the network, the hub or the disk into one line that says what to do."""
    try:
        import httpx
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RevisionNotFoundError
    except ImportError:
        raise SpecError(f"data.name = {name}: huggingface_hub is not installed; install ncdemo[hf], {REMEDY}") from None
    try:
        yield
    except GatedRepoError as error:
        page = f"{urlsplit(_endpoint()).scheme}://{_host()}/datasets/{name}"
        status = error.response.status_code
        raise SpecError(f"data.name = {name}: gated (HTTP {status}); accept its terms on {page} and set HF_TOKEN, {REMEDY}") from None
    except RevisionNotFoundError:
        raise SpecError(f"data.revision = {revision}: {_host()} has {name}, but no such branch, tag or commit; correct it") from None
    except HfHubHTTPError as error:
        answer = f"{_host(str(error.response.url))} answered HTTP {error.response.status_code}"
        remedy = "HF_TOKEN is not valid: renew or unset it" if _token_refused(error) else f"try later (it continues), {REMEDY}"
        raise SpecError(f"data.name = {name}: {answer}; {remedy}") from None
    except HFValidationError as error:
        raise SpecError(f"data.name = {name}: {error}; write owner/name") from None
    except OfflineModeIsEnabled:
        raise SpecError(_offline(name, revision, folder) + " (HF_HUB_OFFLINE is set)") from None
    except (httpx.RequestError, httpx.InvalidURL) as error:
        request = getattr(error, "_request", None)  # the property raises where there is none
        raise SpecError(
            f"data.name = {name}: {_host(str(request.url) if request else None)} could not be reached ({type(error).__name__}: {error}); "
            f"check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT, and run again (it continues), {REMEDY}"
        ) from None
    except OSError as error:
        raise SpecError(f"{folder}: cannot keep the data set there ({error.strerror or error}); free space or set NCDEMO_CACHE") from None


def main(argv: list[str] | None = None) -> int:
    """Fetch one data set; print its folder (or everything, as JSON) on stdout and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workloads.data.download_dataset", description=__doc__.splitlines()[0])
    parser.add_argument("id", nargs="?", default=DEFAULT, help="hub data set id (default: %(default)s)")
    parser.add_argument("--revision", help="branch, tag or commit (default: the default branch)")
    parser.add_argument("--offline", action="store_true", help="only verify what is cached")
    parser.add_argument("--json", action="store_true", help="print id, commit, fallback and files as JSON")
    args = parser.parse_args(argv)
    try:
        got = download_dataset(args.id, revision=args.revision, offline=args.offline)
    except SpecError as error:
        print(error, file=sys.stderr)
        return 1
    facts = {"folder": str(got.folder), "id": got.id, "commit": got.commit, "fallback_from": got.fallback_from}
    print(json.dumps({**facts, "files": [str(path) for path in got.files]}, indent=2) if args.json else got.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
