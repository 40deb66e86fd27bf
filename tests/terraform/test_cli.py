"""`ncdemo terraform` as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hcl2", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")


def ncdemo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ncdemo", "terraform", *words], capture_output=True, text=True, timeout=120)


def test_vars_writes_hcl_or_json(tmp_path: Path) -> None:
    assert ncdemo("vars", "vm-dev", "-o", str(tmp_path / "a.tfvars")).returncode == 0
    assert ncdemo("vars", "vm-dev", "-o", str(tmp_path / "a.tfvars.json"), "--set", "location=westus3").returncode == 0
    assert (tmp_path / "a.tfvars").read_text() == ncdemo("vars", "vm-dev").stdout
    written = json.loads((tmp_path / "a.tfvars.json").read_text())
    assert (written["name"], written["location"], written["pools"][0]["name"]) == ("vm-dev", "westus3", "h100")


def test_parity_says_what_it_compared() -> None:
    done = ncdemo("parity", "aks-dev")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Pulumi and Terraform build the same.\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vars", "nope"], "Error: no stack 'nope'; there are: "),
        (["vars", "vm-dev", "-o", "/nowhere/x"], "Error: -o /nowhere/x: can't be written (No such file or directory)"),
        (
            ["parity", "vm-dev", "--set", "target=kubernetes", "--set", "images.repository=r.example/n"],
            "target: kubernetes makes nothing on Azure",
        ),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str) -> None:
    done = ncdemo(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
