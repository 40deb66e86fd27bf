"""manifest.json of a data set on this disk: which files it has, and what each must hash to.

manifest = read_manifest(folder)
if manifest is None or damaged(folder, manifest): ...    # fetch it
"""

import hashlib
import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DATA_SUFFIXES = (".json", ".jsonl", ".parquet")


class ManifestFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Path in the data set, with forward slashes."""
    size: int
    sha256: str


class Manifest(BaseModel):
    """manifest.json. A folder without a valid one is not a data set, whatever else lies in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """The data set that was really fetched."""
    fallback_from: str | None
    """The id that was asked for, when the hub doesn't have it."""
    requested_revision: str | None
    commit: str
    fetched_at: str
    """UTC, ISO 8601."""
    files: Annotated[tuple[ManifestFile, ...], Field(min_length=1)]


def read_manifest(folder: Path) -> Manifest | None:
    """Return the folder's manifest, or None where it is missing or not valid. Checks no file."""
    try:
        return Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    except (OSError, ValidationError):
        return None


def damaged(folder: Path, manifest: Manifest) -> list[str]:
    return [file.name for file in manifest.files if digests(folder / file.name)[0] != file.sha256]


def digests(path: Path) -> tuple[str, str]:
    """Return (sha256, git blob sha1) of a file; empty where it can't be read. The hub's ETag is one of the two."""
    try:
        with path.open("rb") as file:
            sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
            while block := file.read(1 << 20):
                sha256.update(block)
                git.update(block)
    except OSError:
        return "", ""
    return sha256.hexdigest(), git.hexdigest()
