"""Which MLflow run is a run directory's: one over all attempts, on whatever node, and also of a copy of the folder.

note_key(folder)                    # once, by who opens the run
key = mlflow_key(folder, record)    # the tag ncdemo.key of its MLflow run
"""

import hashlib
import os
import secrets
from pathlib import Path

from ncdemo.spec.job import NCDEMO_JOB, NCDEMO_RESULTS_URI, NCDEMO_STORAGE_ACCOUNT
from ncdemo.spec.result import RunRecord
from ncdemo.spec.run_folder import KEY_FILE


def note_key(folder: Path) -> None:
    """Write down what tells this run from others, unless an attempt before has.

    The pods of a job don't share a disk, so a job's is made of its name and of where its results go; any other run's is random.
    """
    if (folder / KEY_FILE).exists():
        return
    job = os.environ.get(NCDEMO_JOB)
    place = "\n".join(os.environ.get(name, "") for name in (NCDEMO_STORAGE_ACCOUNT, NCDEMO_RESULTS_URI))
    key = _hash(f"{job}\n{place}") if job else secrets.token_hex(16)
    (folder / KEY_FILE).write_text(key + "\n", encoding="utf-8")


def mlflow_key(folder: Path, record: RunRecord) -> str:
    """Return the key of the MLflow run: another spec or folder name is another run. Folders older than KEY_FILE go by their start."""
    try:
        key = (folder / KEY_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return _hash(f"{record.run_id} {record.started_at}")
    return _hash(f"{record.run_id}\n{record.spec_hash}\n{key}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
