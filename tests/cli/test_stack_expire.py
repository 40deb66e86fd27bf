"""`ncdemo stack expire`: stacks past their end, told by their configs, by Pulumi's state and by the tags in Azure, and destroyed."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from ncdemo.cli.stack_expire import state
from tests.infra.subscription.stand_in import SUBSCRIPTION, Cloud, azure

ROOT = Path(__file__).resolve().parents[2]
PAST, FUTURE = "2026-01-31T18:00:00Z", "2999-01-31T18:00:00Z"


def ncdemo(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ncdemo", "stack", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}, timeout=120)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with a stack that is over, one that runs, one without an end, and one that doesn't load."""
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "stacks").mkdir()
    for name, expires in (("over", PAST), ("runs", FUTURE), ("open", None)):
        config = {"config": {"ncdemo:cost_guard": {"expires": expires}} if expires else {}}
        (tmp_path / "stacks" / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "stacks" / "Pulumi.torn.yaml").write_text("config:\n  ncdemo:targt: aks\n")
    return tmp_path


@pytest.fixture
def pulumi(tmp_path: Path) -> dict[str, str]:
    """A `pulumi` that knows some stacks, notes what it is told, and fails at one of them."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "pulumi"
    script.write_text(
        '#!/bin/sh\ncase "$*" in "stack ls --json") cat "$PULUMI_LIST"; exit ;; esac\n'
        'echo "$*" >>"$PULUMI_CALLS"\ncase "$*" in *" bad"*) exit 7 ;; esac\n'
    )
    script.chmod(0o755)
    listed = [{"name": "team/ncdemo/over", "current": False, "resourceCount": 9}, {"name": "runs", "resourceCount": 9}]
    (tmp_path / "list.json").write_text(json.dumps([*listed, {"name": "bad", "resourceCount": 3}]))
    return {
        "PATH": f"{script.parent}:{os.environ['PATH']}",
        "PULUMI_CALLS": str(tmp_path / "calls"),
        "PULUMI_LIST": str(tmp_path / "list.json"),
    }


def test_each_stack_has_its_state_and_one_that_is_over_is_exit_1(checkout: Path) -> None:
    done = ncdemo("expire", "--json", cwd=checkout)
    assert {one["stack"]: one["state"] for one in json.loads(done.stdout)} == {
        "over": "expired", "runs": "runs", "open": "no end", "torn": "unknown",
    }  # fmt: skip
    assert done.returncode == 1
    (checkout / "stacks" / "Pulumi.over.yaml").unlink()
    text = ncdemo("expire", cwd=checkout)
    assert text.returncode == 0
    assert "did you mean target?" in text.stdout


def test_a_stack_that_pulumi_has_nothing_of_is_gone(checkout: Path, pulumi: dict[str, str]) -> None:
    Path(pulumi["PULUMI_LIST"]).write_text(json.dumps([{"name": "over", "resourceCount": 0}, {"name": "runs", "resourceCount": 9}]))
    done = ncdemo("expire", "--json", cwd=checkout, **pulumi)
    assert {one["stack"]: one["state"] for one in json.loads(done.stdout)} == {
        "over": "gone",
        "runs": "runs",
        "open": "gone",
        "torn": "unknown",
    }
    assert done.returncode == 0


def test_destroy_ends_those_that_are_over_alone_and_one_failure_keeps_none_of_the_others(checkout: Path, pulumi: dict[str, str]) -> None:
    (checkout / "stacks" / "Pulumi.bad.yaml").write_text((checkout / "stacks" / "Pulumi.over.yaml").read_text())
    done = ncdemo("expire", "--destroy", "--yes", cwd=checkout, **pulumi)
    assert Path(pulumi["PULUMI_CALLS"]).read_text().splitlines() == ["destroy --stack bad --yes", "destroy --stack over --yes"]
    assert done.returncode == 1
    (checkout / "stacks" / "Pulumi.bad.yaml").unlink()
    assert ncdemo("expire", "--destroy", "--yes", cwd=checkout, **pulumi).returncode == 0
    assert "goes for good" in done.stderr


def test_destroy_dry_run_runs_nothing(checkout: Path, pulumi: dict[str, str]) -> None:
    done = ncdemo("expire", "--destroy", "--dry-run", cwd=checkout, **pulumi)
    assert done.stdout.endswith(f"cd {checkout}\npulumi destroy --stack over\n")
    assert not Path(pulumi["PULUMI_CALLS"]).exists()


def group(name: str, **tags: str) -> dict:
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}",
        "name": name,
        "location": "eastus",
        "tags": {"project": "ncdemo", **tags},
    }


def test_forgotten_stacks_are_found_by_their_tags(checkout: Path) -> None:
    tags = {"managed-by": "pulumi"}
    rows = [
        group("rg-ncdemo-over", stack="over", expires=PAST, **tags),
        group("rg-ncdemo-lost", stack="lost", expires=PAST, **tags),
        group("rg-ncdemo-tf", stack="tf", expires=FUTURE, **{"managed-by": "terraform"}),
        group("rg-ncdemo-odd", stack="odd", expires="tomorrow", **tags),
    ]
    with azure() as cloud:
        cloud.groups = rows
        done = ncdemo("expire", "--azure", "--json", cwd=checkout, **cloud.environment)
        found = {one["where"]: one for one in json.loads(done.stdout) if "group" in one["where"]}
    assert {where: one["state"] for where, one in found.items()} == {
        "resource group rg-ncdemo-over": "expired",
        "resource group rg-ncdemo-lost": "expired",
        "resource group rg-ncdemo-tf": "runs",
        "resource group rg-ncdemo-odd": "unknown",
    }
    assert found["resource group rg-ncdemo-over"]["says"].endswith("ends with: ncdemo stack destroy over")
    assert found["resource group rg-ncdemo-lost"]["says"].endswith("ends with: az group delete -n rg-ncdemo-lost")
    assert found["resource group rg-ncdemo-tf"]["says"].endswith("ends with: terraform destroy")


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("/identity", 400, "--azure: no credential works (ClientAuthenticationError); run: az login"),
        ("/resourcegroups", 403, "--azure: HTTP 403, Denied; check your rights on the subscription with: ncdemo doctor azure"),
        (f"{SUBSCRIPTION}$", 404, f"--azure: subscription: {SUBSCRIPTION}: HTTP 404, Denied. Remedy: az login"),
    ],
)
def test_azure_that_does_not_say_is_one_clear_line(path: str, code: int, message: str, checkout: Path) -> None:
    with azure() as cloud:
        cloud.refuse[path] = (code, "Denied")
        done = ncdemo("expire", "--azure", cwd=checkout, **cloud.environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_json_and_destroy_exclude_each_other(checkout: Path) -> None:
    done = ncdemo("expire", "--json", "--destroy", cwd=checkout)
    assert done.returncode == 2
    assert "--json prints the list alone; leave it or --destroy out" in done.stderr


def test_the_end_is_to_the_hour() -> None:
    now = datetime(2026, 1, 31, 16, 30, tzinfo=UTC)
    assert state(PAST, now) == ("runs", f"until {PAST}, 1.5 h")
    assert state(PAST, now + timedelta(hours=2)) == ("expired", f"since {PAST}, 0.5 h")
    assert state("2026-01-31T18:00:00", now)[0] == "unknown"


def test_new_writes_an_end(tmp_path: Path) -> None:
    done = ncdemo("new", "dev", "--ttl-hours", "8", "--budget", "5", "--email", "a@example.com", "--dry-run", cwd=tmp_path)
    guard = yaml.safe_load(done.stdout)["config"]["ncdemo:cost_guard"]
    left = datetime.fromisoformat(guard["expires"]) - datetime.now(UTC)
    assert timedelta(hours=7.9) < left <= timedelta(hours=8)
    assert guard["monthly_budget_usd"] == 5


def test_the_stand_in_wants_the_documented_filter() -> None:
    assert (
        Cloud().answer("GET", f"/subscriptions/{SUBSCRIPTION}/resourcegroups?api-version=1", None, "Bearer a-token-of-the-stand-in")[0]
        == 400
    )
