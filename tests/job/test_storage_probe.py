"""The probe of `ncdemo doctor cluster --probe-storage`, as the container runs it, against a real blob service."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from workloads.storage_probe import remedy

ROOT = Path(__file__).resolve().parents[2]


def run(code: int, **env: str) -> str:
    """Return its last line."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("NCDEMO_", "AZURE_"))}
    command = [sys.executable, "-m", "workloads.storage_probe"]
    done = subprocess.run(command, cwd=ROOT, env=own | env, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stderr
    return (done.stdout + done.stderr).splitlines()[-1]


def test_it_lists_the_container_and_changes_nothing(azurite: Any) -> None:
    env = {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string, "NCDEMO_STORAGE_ACCOUNT": "ncdemo"}
    before = azurite.blobs("metrics")
    told = json.loads(run(0, NCDEMO_RESULTS_URI="az://metrics/jobs", **env))
    assert told == {"container": "metrics", "account": "ncdemo", "entries": len({name.split("/")[0] for name in before})}
    assert azurite.blobs("metrics") == before


def test_what_goes_wrong_is_one_line_with_its_remedy(azurite: Any) -> None:
    assert run(2).endswith("set it to where results go, e.g. az://metrics/jobs")
    wrong = azurite.connection_string.replace(azurite.key, base64.b64encode(b"k" * 64).decode())
    said = run(1, NCDEMO_RESULTS_URI="az://metrics/jobs", AZURE_STORAGE_CONNECTION_STRING=wrong)
    assert said.startswith("Error: az://metrics/jobs of account None: ")
    assert "; " in said
    assert azurite.key not in said


def test_each_answer_of_storage_has_its_remedy() -> None:
    assert "ncdemo stack up" in remedy("FileNotFoundError: metrics")
    assert "workload identity" in remedy("ClientAuthenticationError: DefaultAzureCredential failed")
    assert "Storage Blob Data Contributor" in remedy("HttpResponseError: AuthorizationPermissionMismatch")
    assert "network" in remedy("ServiceRequestError: Cannot connect")
