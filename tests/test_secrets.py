"""No secret in what is written: canaries are planted where secrets come from, and everything a run and a stack leave is searched."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CANARY = "canary-5ecret-f00d"
KEY = "5ec2e7f0-0d00-4000-8000-00000000cafe"
PLANTED = {
    "HF_TOKEN": f"hf_{CANARY}",
    "AZURE_CLIENT_SECRET": CANARY,
    "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=x;AccountKey={CANARY};EndpointSuffix=core.windows.net",
    # Nobody answers there: what can't be sent is written down to be sent later.
    "NCDEMO_PUSHGATEWAY": f"http://me:{CANARY}@127.0.0.1:9",
    # Nor there; the canary stands where a password of a proxy or a sign of a token would.
    "APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={KEY};IngestionEndpoint=http://me:{CANARY}@127.0.0.1:9/",
    "PULUMI_CONFIG_PASSPHRASE": CANARY,
}
SECRETS = [CANARY.encode(), KEY.encode()]
SPEC = """
kind: bench
name: planted
engines: [echo]
concurrency: [2]
models: [{name: MODEL, label: tiny}]
prompts: {count: 4}
sampling: {max_new_tokens: 4}
telemetry: {sample_hz: 5.0, mlflow_uri: default, azure_monitor: key}
"""


def ncdemo(*args: str, cwd: Path) -> str:
    """Return all that a command says."""
    done = _run(*args, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def refused(*args: str, cwd: Path) -> str:
    """Return all that a command says that can't send."""
    done = _run(*args, cwd=cwd)
    assert done.returncode == 75, done.stderr
    return done.stdout + done.stderr


def _run(*args: str, cwd: Path) -> subprocess.CompletedProcess:
    env = {**os.environ, **PLANTED, "NCDEMO_RUNS": str(cwd / "runs"), "NCDEMO_CACHE": str(cwd / "cache")}
    env.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run([sys.executable, "-m", "ncdemo", *args], capture_output=True, text=True, cwd=cwd, env=env, timeout=280)


def holders(folder: Path) -> list[str]:
    """Return the files below a folder that hold a secret."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and any(one in p.read_bytes() for one in SECRETS)]


@pytest.fixture
def written(tmp_path: Path, tiny_model: Path) -> Iterator[Path]:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.replace("MODEL", str(tiny_model)))
    yield tmp_path
    spec.unlink()


def test_no_secret_in_a_run_its_log_its_report_or_what_is_said(written: Path) -> None:
    said = ncdemo("bench", "run", "-c", "spec.yaml", cwd=written)
    (run,) = (path for path in (written / "runs").iterdir() if path.name.startswith("planted-"))
    said += ncdemo("report", str(run), "-o", "report.html", cwd=written)
    said += ncdemo("jobs", "ls", cwd=written)
    assert (run / "environment.json").exists()
    assert (written / "runs" / "mlflow.db").exists()
    assert list((written / "runs" / ".pushgateway").rglob("*")), "what could not be pushed waits"
    if importlib.util.find_spec("msrest"):  # what else only the extra `azure-monitor` brings
        said += refused("metrics", "export", str(run), "--azure-monitor", "key", cwd=written)
        assert list((written / "runs" / ".azure-monitor").rglob("*.json")), "what Azure Monitor did not take waits"
    assert holders(written) == []
    assert not [one for one in SECRETS if one.decode() in said]


def test_the_search_finds_a_canary(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file.bin").write_bytes(b"\0" + CANARY.encode())
    assert holders(tmp_path) == ["deep/file.bin"]


def test_no_secret_in_what_a_stack_renders(tmp_path: Path) -> None:
    pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")
    root = Path(__file__).parents[1]
    said = ncdemo("stack", "preview", "aks-full", "--yaml", str(tmp_path / "out"), cwd=root)
    assert list((tmp_path / "out").rglob("*.yaml"))
    assert holders(tmp_path / "out") == []
    assert CANARY not in said
