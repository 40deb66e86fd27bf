"""The modules and roots: known to both major versions of azurerm, formatted, described, and run by Terraform's own binary."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("hcl2", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.cli.stack import stack_file
from ncdemo.infra.terraform.configuration import Configuration
from ncdemo.infra.terraform.converted import known
from ncdemo.infra.terraform.differences import NOBODY
from ncdemo.infra.terraform.variables import text_of, variables_of
from ncdemo.infra.vm import vm_cloud_init
from ncdemo.spec.stack_file import load_stack
from tests.terraform.schema import attributes, blocks, body_of, problems
from tests.terraform.stand_in_provider import serving

ROOT = Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "terraform"
FILES = sorted(TERRAFORM.rglob("*.tf"))
SCHEMAS = sorted((ROOT.parent / "shared" / "terraform").glob("azurerm-*.schema.json"))
NEEDS_SCHEMAS = pytest.mark.skipif(not SCHEMAS, reason="needs azurerm's schemas: the folder shared/terraform beside the project")
BINARY = shutil.which("terraform")
NEEDS_BINARY = pytest.mark.skipif(BINARY is None, reason="needs the terraform binary")
ROOTS = ("aks", "vm")


@NEEDS_SCHEMAS
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.name.split(".schema")[0])
def test_every_argument_is_azurerms_and_none_is_deprecated(schema: Path) -> None:
    document = json.loads(schema.read_text())
    assert [fault for path in FILES for fault in problems(path, document)] == []


@NEEDS_SCHEMAS
@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("  sku_tier ", "  sku_teer ", "azurerm_kubernetes_cluster.sku_teer: unknown"),
        (
            '  dns_prefix          = "ncdemo-${var.place.stack}"\n  node_resource_group',
            "  dns_prefix = true\n  node_resource_group",
            "is a bool",
        ),
        ("  node_provisioning_profile {\n    mode", "  node_provisioning {\n    mode", "node_provisioning: unknown block"),
        ("    max_surge = ", "    drain_timeout_in_minutes = ", "upgrade_settings.max_surge: missing"),
        ("  oidc_issuer_enabled ", "  oidc_issuer_url ", "oidc_issuer_url: read-only"),
    ],
)
def test_the_check_finds_a_planted_fault(old: str, new: str, fault: str, tmp_path: Path) -> None:
    text = (TERRAFORM / "modules" / "aks" / "main.tf").read_text()
    assert old in text
    (tmp_path / "main.tf").write_text(text.replace(old, new))
    assert any(fault in line for line in problems(tmp_path / "main.tf", json.loads(SCHEMAS[-1].read_text())))


@NEEDS_SCHEMAS
def test_the_check_finds_what_is_deprecated(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text('resource "azurerm_storage_container" "x" {\n  name = "x"\n  storage_account_name = "y"\n}\n')
    found = [[*problems(tmp_path / "main.tf", json.loads(path.read_text()))] for path in SCHEMAS]
    assert any("storage_account_name: deprecated" in line for line in found[0])
    assert any("storage_account_name: unknown" in line for line in found[-1])


def terraform(folder: Path, *words: str, env: dict[str, str], data: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BINARY), f"-chdir={folder}", *words]
    return subprocess.run(command, env=os.environ | env | {"TF_DATA_DIR": str(data)}, capture_output=True, text=True, timeout=180)


@NEEDS_SCHEMAS
@NEEDS_BINARY
@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.name.split(".schema")[0])
def test_terraform_validates_and_its_tests_pass(schema: Path, root: str, tmp_path: Path) -> None:
    """The real binary and the provider's real schema; azurerm's own code isn't there (stand_in_provider.py)."""
    with serving(schema) as env:
        for words in (["init", "-backend=false"], ["validate", "-no-color"], ["test", "-no-color"]):
            done = terraform(TERRAFORM / root, *words, env=env, data=tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed, 0 failed\.", done.stdout), done.stdout


@NEEDS_SCHEMAS
@NEEDS_BINARY
def test_the_stand_in_refuses_what_azurerm_would(tmp_path: Path) -> None:
    shutil.copytree(TERRAFORM / "modules" / "registry", tmp_path / "registry")
    path = tmp_path / "registry" / "main.tf"
    path.write_text(path.read_text().replace("admin_enabled ", "admin_enable "))
    with serving(SCHEMAS[0]) as env:
        terraform(path.parent, "init", "-backend=false", env=env, data=tmp_path / "data")
        done = terraform(path.parent, "validate", "-no-color", env=env, data=tmp_path / "data")
    assert done.returncode == 1
    assert 'An argument named "admin_enable" is not expected here' in done.stderr


@NEEDS_BINARY
def test_terraform_would_format_nothing_otherwise(tmp_path: Path) -> None:
    done = terraform(TERRAFORM, "fmt", "-check", "-recursive", "-diff", env={}, data=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    for path in (TERRAFORM / "examples").glob("*.hcl"):
        shutil.copy(path, tmp_path / f"{path.stem}.tfvars")
    assert terraform(tmp_path, "fmt", "-check", "-diff", env={}, data=tmp_path).stdout == ""


@pytest.mark.parametrize("name", ROOTS)
def test_examples_are_what_vars_writes(name: str) -> None:
    written = text_of(variables_of(load_stack(stack_file(f"{name}-full"))))
    example = (TERRAFORM / "examples" / f"{name}.hcl").read_text()
    assert re.sub(r"\A(#.*\n)+\n", "", example) == written


def test_modules_are_whole() -> None:
    """Every module pins azurerm, only roots have a provider, and every variable and output says what it is."""
    folders = {path.parent for path in FILES}
    assert {path.name for path in (TERRAFORM / "modules").iterdir()} == {
        "network", "identity", "storage", "registry", "aks", "gpu_pool", "vm", "monitoring", "application_insights", "cost_guard"
    }  # fmt: skip
    for folder in folders:
        found = [one for path in folder.glob("*.tf") for one in blocks(body_of(path))]
        kinds = [kind for kind, _, _ in found]
        assert (folder / "versions.tf").read_text() == (TERRAFORM / "aks" / "versions.tf").read_text()
        assert ("provider" in kinds) == (folder.parent == TERRAFORM)
        for kind, labels, body in found:
            if kind in ("variable", "output"):
                assert {"description"} | ({"type"} if kind == "variable" else {"value"}) <= attributes(body).keys(), (folder, labels)


@pytest.mark.parametrize(
    ("setup", "same_text"),
    [("", True), ("apt-get update\napt-get install -y htop", False), ("#!/bin/bash\necho \"${HOME}\" 'x' \\ \t", False)],
)
def test_cloud_init_is_pulumis(setup: str, same_text: bool) -> None:
    import yaml

    stack = load_stack(stack_file("vm-full"), [f"vm.setup={json.dumps(setup)}"])
    made = Configuration(TERRAFORM / "vm", {**variables_of(stack), "suffix": "abc123"}, known)
    machine = next(one for one in made.resources if one.type == "azurerm_linux_virtual_machine")
    text = base64.b64decode(machine.arguments["custom_data"]).decode()
    client_id = re.search("NCDEMO_CLIENT_ID=(.*)", text)
    assert client_id
    expected = vm_cloud_init(stack.spec.vm, client_id[1], "nfvmfullabc123.file.core.windows.net")
    assert (text == expected) if same_text else (yaml.safe_load(text) == yaml.safe_load(expected))


def test_nobody_holds_the_key_of_a_vm_without_keys() -> None:
    text = (TERRAFORM / "modules" / "vm" / "main.tf").read_text()
    assert f'nobody = "{NOBODY}"' in text
    blob = base64.b64decode(NOBODY.removeprefix("ssh-ed25519 "))
    assert blob[:19] == b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
    assert blob[19:] == hashlib.sha256(b"ncdemo: nobody holds this key").digest()
