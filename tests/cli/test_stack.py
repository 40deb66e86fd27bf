"""`ncdemo stack`: previews without a cloud, configs by flags, and the Pulumi CLI called as told."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
needs_pulumi = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import pulumi"], capture_output=True).returncode != 0,
    reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra",
)


def ncdemo(*args: str, cwd: Path = ROOT, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ncdemo", "stack", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, input=stdin, env={**os.environ, **env}, timeout=120)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project of a user's own: Pulumi.yaml and an empty stacks folder."""
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "stacks").mkdir()
    return tmp_path


@pytest.fixture
def fake_pulumi(tmp_path: Path) -> dict[str, str]:
    """A `pulumi` first on PATH that notes its folder and arguments, and fails when asked to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "pulumi"
    script.write_text('#!/bin/sh\necho "$PWD: $*" >>"$PULUMI_CALLS"\ncase "$*" in *"$PULUMI_FAILS"*) exit 7 ;; esac\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "PULUMI_CALLS": str(tmp_path / "calls"), "PULUMI_FAILS": "nothing"}


@needs_pulumi
def test_preview_shows_tree_manifests_quota_and_price() -> None:
    done = ncdemo("preview", "aks-full")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert (
        text.index("kind: Job") < text.index("stack aks-full (target: aks)") < text.index("quota asked") < text.index("price, USD per hour")
    )
    assert "lowPriorityCores" in text
    assert "standardNCadsH100v5Family" in text
    for line in ("pool nc80spot: 0..2 x Standard_NC80adis_H100_v5 spot", "tune-2x2", "together"):
        assert line in text


@needs_pulumi
def test_preview_as_json_holds_the_same(tmp_path: Path) -> None:
    done = ncdemo("preview", "vm-dev", "--json", "--set", "pools.0.max_count=3")
    found = json.loads(done.stdout)
    machines = [r for r in found["resources"] if r["type"].endswith(":VirtualMachine")]
    assert len(machines) == 3
    assert all(text.startswith("#cloud-config\n") for text in found["cloud_init"].values())
    assert found["quota_vcpus"] == {"lowPriorityCores": 120}
    full = found["price"]["full_usd_per_h"] - found["price"]["idle_usd_per_h"]
    assert full == pytest.approx(3 * 6.98)


@needs_pulumi
def test_idle_aks_dev_costs_its_system_pool_and_storage_alone() -> None:
    price = json.loads(ncdemo("preview", "aks-dev", "--json").stdout)["price"]
    idle = {line["item"].split(":")[0]: line["idle_usd_per_h"] for line in price["lines"] if line["idle_usd_per_h"]}
    assert set(idle) == {"system pool", "system pool's OS disks", "system pool's way out", "container registry, Basic"}
    assert price["unknown"] == []
    assert price["idle_usd_per_h"] == pytest.approx(sum(idle.values()))


@needs_pulumi
def test_a_price_that_is_not_known_is_said_to_be_unknown() -> None:
    text = ncdemo("preview", "aks-dev", "--set", "location=westeurope").stdout
    assert "the price in westeurope isn't in the table" in text
    assert "not in the sums" in text
    assert "unknown" in text


@needs_pulumi
def test_preview_writes_what_kubectl_can_apply(tmp_path: Path) -> None:
    done = ncdemo("preview", "aks-dev", "--yaml", str(tmp_path / "out"))
    files = sorted((tmp_path / "out").iterdir())
    kinds = [yaml.safe_load(path.read_text())["kind"] for path in files]
    assert kinds[0] == "Namespace"
    assert kinds[-1] == "Job"
    assert f"{len(files)} files in" in done.stderr
    assert "kind: Job" not in done.stdout
    again = ncdemo("preview", "vm-dev", "--yaml", str(tmp_path / "vm"))
    assert again.returncode == 0
    assert {path.suffixes[-1] for path in (tmp_path / "vm").iterdir()} == {".yaml", ".sh"}


@needs_pulumi
def test_preview_draws_the_architecture(tmp_path: Path) -> None:
    assert ncdemo("preview", "vm-dev", "--json", "--picture", str(tmp_path / "vm.svg")).returncode == 0
    assert (tmp_path / "vm.svg").read_text().startswith("<svg ")


@needs_pulumi
def test_an_alias_of_a_size_is_told_and_never_sent_to_azure(checkout: Path) -> None:
    config = {"config": {"ncdemo:pools": [{"name": "h100", "vm_size": "Standard_NC40adis_H100_v5"}]}}
    (checkout / "stacks" / "Pulumi.dev.yaml").write_text(yaml.safe_dump(config))
    done = ncdemo("preview", "dev", "--json", cwd=checkout)
    assert "Warning: pools.0.vm_size: Standard_NC40adis_H100_v5 is not an Azure size; Standard_NC40ads_H100_v5 is used" in done.stderr
    assert "NC40adis" not in json.dumps(json.loads(done.stdout)["resources"])


@needs_pulumi
def test_setup_that_makes_cloud_init_too_large_is_refused(checkout: Path) -> None:
    config = {"config": {"ncdemo:target": "vm", "ncdemo:vm": {"setup": "echo hello\n" * 6000}}}
    (checkout / "stacks" / "Pulumi.dev.yaml").write_text(yaml.safe_dump(config))
    done = ncdemo("preview", "dev", cwd=checkout)
    assert done.returncode == 2
    assert "vm.setup: makes cloud-init" in done.stderr
    assert "65,535" in done.stderr
    assert "Pulumi.dev.yaml:" in done.stderr


@needs_pulumi
def test_a_cluster_that_exists_needs_an_image_repository(checkout: Path) -> None:
    config = {"config": {"ncdemo:target": "kubernetes", "ncdemo:jobs": [{"name": "a", "config": "workloads/configs/training/lora.yaml"}]}}
    (checkout / "stacks" / "Pulumi.dev.yaml").write_text(yaml.safe_dump(config))
    done = ncdemo("preview", "dev", cwd=checkout)
    assert done.returncode == 2
    assert "images.repository: is needed" in done.stderr
    assert ncdemo("preview", "dev", "--set", "images.repository=registry.example/ncdemo", cwd=checkout).returncode == 0


def test_an_unknown_stack_says_which_there_are() -> None:
    done = ncdemo("preview", "nope")
    assert done.returncode == 2
    assert done.stderr == "Error: no stack 'nope'; there are: aks-dev, aks-full, vm-dev, vm-full. Write one with: ncdemo stack new nope\n"


def test_new_writes_a_config_that_loads(checkout: Path) -> None:
    done = ncdemo(
        "new", "team", "--target", "vm", "--vm-size", "standard_nc80adis_h100_v5", "--on-demand", "--max-count", "2", "--budget", "100",
        "--email", "a@example.com", "--job", "workloads/configs/training/lora.yaml", "--job", "workloads/configs/inference/demo.yaml",
        cwd=checkout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = checkout / "stacks" / "Pulumi.team.yaml"
    assert done.stdout.strip() == str(path)
    from ncdemo.spec.stack_file import load_stack

    stack = load_stack(path)
    assert stack.spec.pools[0].vm_size == "Standard_NC80adis_H100_v5"
    assert not stack.spec.pools[0].spot
    assert [run.job.name for run in stack.jobs] == ["lora", "demo-2"]
    again = ncdemo("new", "team", cwd=checkout)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_new_without_flags_takes_defaults_where_nobody_can_answer(checkout: Path) -> None:
    done = ncdemo("new", "dev", cwd=checkout, stdin="")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((checkout / "stacks" / "Pulumi.dev.yaml").read_text())["config"]
    assert config["ncdemo:target"] == "aks"
    assert config["ncdemo:pools"] == [{"name": "h100", "vm_size": "Standard_NC40ads_H100_v5", "spot": True, "max_count": 1}]


def test_new_asks_in_a_terminal(checkout: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs a terminal of POSIX")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(checkout)
        os.execv(sys.executable, [sys.executable, "-m", "ncdemo", "stack", "new", "asked"])
    answers = ["vm", "spaincentral", "Standard_NC40ads_H100_v5", "y", "2", "0", ""]
    os.write(terminal, "".join(f"{answer}\n" for answer in answers).encode())
    seen = b""
    try:
        while part := os.read(terminal, 4096):
            seen += part
    except OSError:
        pass  # the terminal of a process that ended
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen.decode()
    config = yaml.safe_load((checkout / "stacks" / "Pulumi.asked.yaml").read_text())["config"]
    assert (config["ncdemo:target"], config["ncdemo:location"], config["ncdemo:pools"][0]["max_count"]) == ("vm", "spaincentral", 2)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--vm-size", "Standard_NC24"], "isn't a VM size in ncdemo's catalogue"),
        (["--budget", "5"], "--budget needs someone to warn: add --email"),
        (["--location", "East US"], "an Azure region without spaces, e.g. eastus"),
        (["--job", "nope.yaml"], "nope.yaml: no such file"),
    ],
)
def test_new_refuses_what_would_not_load_and_writes_nothing(args: list[str], said: str, checkout: Path) -> None:
    done = ncdemo("new", "dev", *args, cwd=checkout)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list((checkout / "stacks").iterdir())


def test_new_dry_run_prints_and_writes_nothing(checkout: Path) -> None:
    done = ncdemo("new", "dev", "--dry-run", cwd=checkout)
    assert yaml.safe_load(done.stdout)["config"]["ncdemo:target"] == "aks"
    assert not list((checkout / "stacks").iterdir())


def test_up_and_destroy_call_pulumi_in_the_projects_folder(fake_pulumi: dict[str, str], tmp_path: Path) -> None:
    assert ncdemo("up", "aks-dev", "--yes", **fake_pulumi).returncode == 0
    assert ncdemo("destroy", "aks-dev", **fake_pulumi).returncode == 0
    calls = Path(fake_pulumi["PULUMI_CALLS"]).read_text().splitlines()
    assert [call.partition(": ")[2] for call in calls] == [
        "stack select --create aks-dev",
        "up --stack aks-dev --yes",
        "destroy --stack aks-dev",
    ]
    assert {Path(call.partition(": ")[0]) for call in calls} == {ROOT}


def test_a_failure_of_pulumi_is_the_exit_code_and_ends_it(fake_pulumi: dict[str, str]) -> None:
    done = ncdemo("up", "aks-dev", **fake_pulumi | {"PULUMI_FAILS": "select"})
    assert done.returncode == 7
    assert len(Path(fake_pulumi["PULUMI_CALLS"]).read_text().splitlines()) == 1


def test_up_dry_run_prints_exactly_what_runs(fake_pulumi: dict[str, str]) -> None:
    done = ncdemo("up", "vm-dev", "--dry-run", **fake_pulumi)
    assert done.stdout == f"cd {ROOT}\npulumi stack select --create vm-dev\npulumi up --stack vm-dev\n"
    assert not Path(fake_pulumi["PULUMI_CALLS"]).exists()


def test_without_the_pulumi_cli_the_message_names_its_install_page(tmp_path: Path) -> None:
    done = ncdemo("up", "aks-dev", PATH=str(tmp_path))
    assert done.returncode == 2
    assert "the Pulumi CLI isn't installed; see: Download & install Pulumi, pulumi.com/docs/install" in done.stderr


def test_a_config_with_mistakes_never_reaches_pulumi(fake_pulumi: dict[str, str], checkout: Path) -> None:
    (checkout / "stacks" / "Pulumi.bad.yaml").write_text("config:\n  ncdemo:targt: aks\n")
    done = ncdemo("up", "bad", cwd=checkout, **fake_pulumi)
    assert done.returncode == 2
    assert "did you mean target?" in done.stderr
    assert not Path(fake_pulumi["PULUMI_CALLS"]).exists()
