"""Send a run directory to MLflow, in a process of its own: nothing MLflow does, or fails to do, can break or hang the run.

Exporting again updates the same MLflow run, so an export that was cut off is simply repeated.

    python -m workloads.metrics.mlflow_log RUN_DIR --uri http://127.0.0.1:5000
"""

import argparse
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ncdemo.spec.common import Telemetry
from ncdemo.spec.run_folder import RESULT_FILE, SPEC
from workloads.metrics.mlflow_model import files
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
MODEL_S = 600.0
"""What a node may wait at its end for the server to take weights."""
NO_RUN = "there is no result.json in it"


def resolve_uri(setting: str | None, runs: Path) -> str | None:
    """Return the tracking URI that telemetry.mlflow_uri means; `runs` is the folder that holds the run directories."""
    if setting != "default":
        return setting
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs.absolute() / 'mlflow.db'}"


def log_run(run_dir: Path, uri: str, timeout_s: float = 120.0) -> str | None:
    """Export a run, finished or not, and return its MLflow run id. None after a warning that says why not and what to do."""
    try:
        if not (run_dir / RESULT_FILE).is_file():
            raise FileNotFoundError(NO_RUN)
        answer = json.loads(_python("mlflow_export", [str(run_dir.absolute())], uri, timeout_s).splitlines()[-1])
    except Exception as error:  # an export that fails must not make a run fail
        _warn(uri, f"{run_dir} was not exported", _said(error, timeout_s), run_dir)
        return None
    for name in answer["left_out"]:
        LOG.warning("MLflow at %s: %s/%s is too long and was left out", redact(uri), run_dir, name)
    return str(answer["run_id"])


def log_model(run_dir: Path, uri: str, run_id: str, which: str, timeout_s: float = MODEL_S) -> bool:
    """Log a finished run's weights, `which` as in telemetry.mlflow_model, to its MLflow run. False after a warning."""
    if next(files(run_dir, which), None) is None:
        return True
    what, why = f"of {run_dir} not all weights were logged", "it was stopped"
    # The server answers once it has passed a file on, which takes as long as it takes.
    env = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, round(timeout_s)))}
    try:
        _python("mlflow_model", [str(run_dir.absolute()), run_id, which], uri, timeout_s, env)
        return True
    except Exception as error:  # as above
        why = _said(error, timeout_s)
    except BaseException:  # a signal ends the wait
        _warn(uri, what, why, run_dir)
        raise
    _warn(uri, what, why, run_dir)
    return False


def _python(module: str, arguments: list[str], uri: str, timeout_s: float, limits: dict[str, str] | None = None) -> str:
    """Run a module beside this one to its end and return what it says."""
    folder = None
    if uri.startswith("sqlite:///"):
        # Where MLflow keeps the artifacts of a local store: in ./mlruns, so it is started beside the database.
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        uri, folder = f"sqlite:///{database}", database.parent
        folder.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
    # The URI goes by environment, as it may hold a password and every user of the machine can read a command line.
    env = {**LIMITS, **(limits or {}), **os.environ, "PYTHONPATH": path, "MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, "-P", "-W", "ignore", "-m", f"workloads.metrics.{module}", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise RuntimeError(_why(done.stderr) or f"exit code {done.returncode}")
    return done.stdout


def _said(error: Exception, timeout_s: float) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took longer than {timeout_s:g} s"
    return str(error) or type(error).__name__


def _why(stderr: str) -> str:
    """Return the last line; of the four errors that the HTTP client wraps a refused connection in, the innermost."""
    line = (stderr.strip().splitlines() or [""])[-1]
    if "Max retries exceeded" in line:
        reason = re.search(r"Errno [-0-9]+\] ([\w ]+)|((?:Read )?timed out)", line)
        return f"the server does not answer ({reason[1] or reason[2]})" if reason else "the server does not answer"
    return line if len(line) <= 300 else line[:300] + "..."


def _warn(uri: str, what: str, why: str, run_dir: Path) -> None:
    LOG.warning("MLflow at %s: %s: %s; %s", redact(uri), what, redact(why), _remedy(why, run_dir, uri))


def _remedy(why: str, run_dir: Path, uri: str) -> str:
    if why == NO_RUN:
        return "give the folder of a run"
    if "No module named 'mlflow'" in why:
        return "install mlflow-skinny, or set telemetry.mlflow_uri to null"
    if "No module named 'sqlalchemy'" in why or "No module named 'alembic'" in why:
        return "install sqlalchemy and alembic, or set telemetry.mlflow_uri to a server's address or to null"
    return f"check that address, then: ncdemo metrics export {shlex.quote(str(run_dir))} --mlflow {redact(uri)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workloads.metrics.mlflow_log", description="Export a run directory to MLflow.")
    parser.add_argument("run_dir", type=Path, help="the run's folder, with result.json in it")
    parser.add_argument("--uri", help="tracking URI (default: what the run's spec says; `default` and null mean MLFLOW_TRACKING_URI, "
                        "else mlflow.db beside the run)")  # fmt: skip
    parser.add_argument("--timeout-s", type=float, default=3600.0, help="give up after this long (default: 3600)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    telemetry = _telemetry(args.run_dir)
    uri = resolve_uri(args.uri or telemetry["mlflow_uri"] or "default", args.run_dir.absolute().parent)
    assert uri is not None
    run_id = log_run(args.run_dir, uri, args.timeout_s)
    if run_id is None or not _log_model_if_finished(args.run_dir, uri, run_id, telemetry, args.timeout_s):
        sys.exit(1)
    print(run_id)


def _log_model_if_finished(run_dir: Path, uri: str, run_id: str, telemetry: dict[str, Any], timeout_s: float) -> bool:
    status = json.loads((run_dir / RESULT_FILE).read_text(encoding="utf-8"))["status"]
    return status != "finished" or log_model(run_dir, uri, run_id, telemetry["mlflow_model"], timeout_s)


def _telemetry(run_dir: Path) -> dict[str, Any]:
    """Return what a run's spec says of telemetry, also one of another version."""
    try:
        said = dict(yaml.safe_load((run_dir / SPEC).read_text(encoding="utf-8"))["telemetry"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        said = {}
    return {**Telemetry().to_dict(), **said}


if __name__ == "__main__":
    main()
