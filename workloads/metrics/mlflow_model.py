"""The weights of a finished run as artifacts of its MLflow run: model/ holds what the run's model/ does, model/adapter/ its adapter.

Started by mlflow_log.py with MLFLOW_TRACKING_URI set. What is there with the same size stays, so a second start goes on.

    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python -m workloads.metrics.mlflow_model RUN_DIR MLFLOW_RUN_ID all
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ncdemo.spec.run_folder import is_copied

FOLDERS = {"none": {}, "adapter": {"adapter": "model/adapter"}, "all": {"adapter": "model/adapter", "model": "model"}}
"""What telemetry.mlflow_model says -> folder of a run directory -> where it goes."""


def files(run_dir: Path, which: str) -> Iterator[tuple[Path, str]]:
    """Yield each file and the folder that it goes to."""
    for name, target in FOLDERS[which].items():
        for folder, folders, names in os.walk(run_dir / name):
            folders[:] = sorted(filter(is_copied, folders))
            inner = Path(folder).relative_to(run_dir / name)
            yield from ((Path(folder, file), (Path(target) / inner).as_posix()) for file in sorted(filter(is_copied, names)))


def log_files(client: Any, run_id: str, found: Iterator[tuple[Path, str]]) -> None:
    """Log what isn't there yet."""
    there: dict[str, dict[str, int]] = {}
    for path, target in found:
        if target not in there:
            there[target] = {entry.path: entry.file_size for entry in client.list_artifacts(run_id, target) if not entry.is_dir}
        if there[target].get(f"{target}/{path.name}") != path.stat().st_size:
            client.log_artifact(run_id, str(path), target)


def main() -> None:
    from mlflow import MlflowClient

    run_dir, run_id, which = sys.argv[1:]
    try:
        log_files(MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"]), run_id, files(Path(run_dir), which))
    except Exception as error:  # as in mlflow_export.py
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
