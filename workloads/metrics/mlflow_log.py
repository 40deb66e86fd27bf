"""Send a run directory to MLflow, in a process of its own: nothing MLflow does, or fails to do, can break or hang the run.

Exporting again updates the same MLflow run, so an export that was cut off is simply repeated.

    python -m workloads.metrics.mlflow_log RUN_DIR --uri http://127.0.0.1:5000
"""

import argparse
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

from workloads.metrics.redact import redact

LOG = logging.getLogger(__name__)
LIMITS = {
    # MLflow's own (120 s, 7 retries) would hold a finished run for minutes when the server is gone.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    # Its usage statistics would go to its makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Set for the export unless the environment sets them."""
NO_RUN = "there is no result.json in it"


def resolve_uri(setting: str | None, runs: Path) -> str | None:
    """Return the tracking URI that telemetry.mlflow_uri means; `runs` is the folder that holds the run directories."""
    if setting != "default":
        return setting
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs.absolute() / 'mlflow.db'}"


def log_run(run_dir: Path, uri: str, timeout_s: float = 120.0) -> str | None:
    """Export a run, finished or not, and return its MLflow run id. None after a warning that says why not and what to do."""
    try:
        return _export(run_dir.absolute(), uri, timeout_s)
    except subprocess.TimeoutExpired:
        why = f"it took longer than {timeout_s:g} s"
    except Exception as error:  # an export that fails must not make a run fail
        why = str(error) or type(error).__name__
    LOG.warning("MLflow at %s: %s was not exported: %s; %s", redact(uri), run_dir, redact(why), _remedy(why, run_dir, uri))
    return None


def _export(run_dir: Path, uri: str, timeout_s: float) -> str:
    folder = None
    if not (run_dir / "result.json").is_file():
        raise FileNotFoundError(NO_RUN)
    if uri.startswith("sqlite:///"):
        # Where MLflow keeps the artifacts of a local store: in ./mlruns, so it is started beside the database.
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        uri, folder = f"sqlite:///{database}", database.parent
        folder.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
    # The URI goes by environment, as it may hold a password and every user of the machine can read a command line.
    env = {**LIMITS, **os.environ, "PYTHONPATH": path, "MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, "-P", "-W", "ignore", "-m", "workloads.metrics.mlflow_export", str(run_dir)]
    done = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise RuntimeError(_why(done.stderr) or f"exit code {done.returncode}")
    return done.stdout.split()[-1]


def _why(stderr: str) -> str:
    """Return the last line; of the four errors that the HTTP client wraps a refused connection in, the innermost."""
    line = (stderr.strip().splitlines() or [""])[-1]
    if "Max retries exceeded" in line:
        reason = re.search(r"Errno [-0-9]+\] ([\w ]+)|((?:Read )?timed out)", line)
        return f"the server does not answer ({reason[1] or reason[2]})" if reason else "the server does not answer"
    return line if len(line) <= 300 else line[:300] + "..."


def _remedy(why: str, run_dir: Path, uri: str) -> str:
    if why == NO_RUN:
        return "give the folder of a run"
    if "No module named 'mlflow'" in why:
        return "install mlflow-skinny, or set telemetry.mlflow_uri to null"
    if "No module named 'sqlalchemy'" in why or "No module named 'alembic'" in why:
        return "install sqlalchemy and alembic, or set telemetry.mlflow_uri to a server's address or to null"
    return f"check that address, then: python -m workloads.metrics.mlflow_log {run_dir} --uri {redact(uri)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workloads.metrics.mlflow_log", description="Export a run directory to MLflow.")
    parser.add_argument("run_dir", type=Path, help="the run's folder, with result.json in it")
    parser.add_argument("--uri", default="default", help="tracking URI (default: MLFLOW_TRACKING_URI, else mlflow.db beside the run)")
    parser.add_argument("--timeout-s", type=float, default=3600.0, help="give up after this long (default: 3600)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    uri = resolve_uri(args.uri, args.run_dir.absolute().parent)
    assert uri is not None
    run_id = log_run(args.run_dir, uri, args.timeout_s)
    if run_id is None:
        sys.exit(1)
    print(run_id)


if __name__ == "__main__":
    main()
