"""`ncdemo doctor azure` as a user runs it: azure-identity logs in at a stand-in of Azure on 127.0.0.1, and everything is asked there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.subscription.stand_in import azure

ROOT = Path(__file__).resolve().parents[2]


def doctor(*words: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ncdemo", "doctor", "azure", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **env}, timeout=60)


def test_regions_are_ranked_and_every_finding_has_its_remedy() -> None:
    with azure() as cloud:
        cloud.quota["eastus"]["lowPriorityCores"] = (0, 0)
        done = doctor("aks-dev", "--region", "eastus", "--region", "spaincentral", **cloud.environment)
        as_data = doctor("aks-dev", "--region", "eastus", "--region", "spaincentral", "--json", **cloud.environment)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "regions, the best first"
    assert lines[1].startswith("  1. spaincentral       possible     placement High, evictions 0-5, 18.25 USD/h, spot 4.05")
    assert lines[2].startswith("  2. eastus             1 failures   placement Low, evictions 20+")
    assert "remedy: az quota update --resource-name lowPriorityCores" in done.stdout
    data = json.loads(as_data.stdout)
    assert [one["name"] for one in data["regions"]] == ["spaincentral", "eastus"]
    assert sum(one["status"] == "fail" for one in data["findings"]) == 1


def test_a_region_where_all_is_well_exits_0() -> None:
    with azure() as cloud:
        done = doctor("--region", "spaincentral", **cloud.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "remedy" not in done.stdout


def test_no_login_is_one_finding() -> None:
    with azure() as cloud:
        cloud.refuse["/identity"] = (400, "no")
        done = doctor(**cloud.environment)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith("fail     login                        no credential works")
    assert "remedy: az login" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--region", "eastus'"], "--region \"eastus'\": isn't a region's name; write e.g. eastus"),
        (["nope"], "no stack 'nope'; there are: aks-dev"),
    ],
)
def test_mistakes_are_one_clear_line_and_nothing_is_asked(words: list[str], message: str) -> None:
    with azure() as cloud:
        done = doctor(*words, **cloud.environment)
    assert (done.returncode, done.stdout, cloud.asked) == (2, "", [])
    assert message in done.stderr


def test_a_stack_on_a_cluster_that_exists_asks_azure_nothing(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text("config:\n  ncdemo:target: kubernetes\n")
    done = doctor(str(path))
    assert done.returncode == 2
    assert "Pulumi.dev.yaml:2: target: kubernetes makes nothing on Azure" in done.stderr


def test_a_regions_title_is_its_name() -> None:
    with azure() as cloud:
        assert doctor("--region", "Spain Central", **cloud.environment).returncode == 0
