"""Pulumi and Terraform build the same, and a value that is changed on one side alone is seen."""

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hcl2", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.cli.stack import stack_file
from ncdemo.infra.terraform import converted
from ncdemo.infra.terraform.configuration import Configuration, Made
from ncdemo.infra.terraform.differences import ALLOWED
from ncdemo.infra.terraform.normal import Resource
from ncdemo.infra.terraform.parity import between, compare, pulumi_side, terraform_side
from ncdemo.infra.terraform.show import as_json, as_text
from ncdemo.infra.terraform.variables import variables_of
from ncdemo.spec.base import SpecError
from ncdemo.spec.stack_file import Stack, load_stack

ROOT = Path(__file__).resolve().parents[2]
STACKS = sorted(path.name.split(".")[1] for path in (ROOT / "stacks").glob("Pulumi.*.yaml"))
FULL = ("aks-full", "vm-full")
ADMIN = "11111111-2222-3333-4444-555555555555"
VARIANTS = [
    ("vm-dev", ["network.ssh_from=[203.0.113.7/32]", "pools.0.zones=['1','2']", "pools.0.max_count=3", "pools.0.max_price_usd_per_h=2.5"]),
    ("vm-dev", ["network.bastion=basic", "cost_guard.shutdown_utc=null", "vm.image='2404'", "vm.idle_minutes=30"]),
    ("vm-full", ["vm.setup=apt-get install -y htop", "vm.ssh_public_keys=['ssh-ed25519 AAAAC3Nza me']", "storage.replication=ZRS"]),
    ("aks-dev", ["pools.0.zones=['2']", "pools.0.vm_size=Standard_D4s_v5", "aks.api_allowed_from=[203.0.113.0/24]", "tags.team=ml"]),
    ("vm-dev", ["cost_guard.expires='2027-01-31T18:00:00Z'"]),
    ("vm-dev", ["monitoring.application_insights=true", "monitoring.application_insights_gb_per_day=2.5"]),
    ("aks-dev", ["monitoring.application_insights=true", "monitoring.application_insights_gb_per_day=10"]),
    ("aks-dev", ["cost_guard.expires='2027-01-31T18:00:00Z'", f"aks.admins=['{ADMIN}','{ADMIN[:-1]}6']"]),
    ("aks-full", ["monitoring.azure_monitor_alerts=true"]),
    ("aks-dev", ["monitoring.azure_monitor=true", "monitoring.azure_monitor_alerts=true", "location=westeurope"]),
    ("aks-full", ["storage.allowed_from=[203.0.113.7/32]", "network.address_space=10.8.0.0/20", "pools.1.driver=none"]),
]
NOT_AZURES = {"resource_group_name", "temporary_name_for_rotation"}
"""Part of the address of everything, and a name that azurerm uses for minutes."""


def stack_of(name: str, *overrides: str) -> Stack:
    return load_stack(stack_file(name), overrides)


@pytest.mark.parametrize("name", STACKS)
def test_both_sides_of_an_example_stack_build_the_same(name: str) -> None:
    found = compare(stack_of(name))
    assert (found.unequal, found.alone) == ([], ())
    assert found.share >= 0.95
    assert len(found.compared) > 150


@pytest.mark.parametrize(("name", "overrides"), VARIANTS)
def test_both_sides_follow_the_config(name: str, overrides: list[str]) -> None:
    found = compare(stack_of(name, *overrides))
    assert (found.unequal, found.alone) == ([], ())


@pytest.fixture(scope="module", params=FULL)
def sides(request: pytest.FixtureRequest) -> tuple[list[Resource], list[Resource]]:
    stack = stack_of(request.param)
    return pulumi_side(stack), terraform_side(stack)


def test_every_property_that_changes_on_one_side_is_reported(sides: tuple[list[Resource], list[Resource]]) -> None:
    changes = 0
    for side, resources in enumerate(sides):
        for resource in resources:
            twins = [[one for one in both if (one.type, one.name) == (resource.type, resource.name)] for both in sides]
            for path in resource.properties:
                changed = replace(resource, properties={**resource.properties, path: "changed"})
                pair = [[changed] if at == side else twin for at, twin in enumerate(twins)]
                assert [one.path for one in between(*pair).unequal] == [path], (resource.source, path)
                changes += 1
    assert changes > 500


def leaves(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        yield way
        return
    for key, one in inside:
        yield from leaves(one, (*way, key))


def changed(made: Made, way: tuple[Any, ...]) -> Made | None:
    arguments = copy.deepcopy(made.arguments)
    inside = arguments
    for key in way[:-1]:
        inside = inside[key]
    old = inside[way[-1]]
    if old is None:
        return None
    text = f"{old}x" if str(old).startswith("/subscriptions/") else f"x{old}"
    inside[way[-1]] = not old if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else text
    return replace(made, arguments=arguments)


@pytest.mark.parametrize("name", FULL)
def test_every_argument_that_changes_in_terraform_is_seen(name: str) -> None:
    """Through the table of what Azure calls it, as a change in a module would."""
    stack = stack_of(name)
    pulumi = pulumi_side(stack)
    made = Configuration(ROOT / "terraform" / stack.spec.target, {**variables_of(stack), "suffix": "abc123"}, converted.known).resources
    unseen, tried = [], 0
    for at, resource in enumerate(made):
        for way in leaves(resource.arguments):
            other = changed(resource, way)
            if other is None or way[-1] in NOT_AZURES or way[0] in NOT_AZURES:
                continue
            tried += 1
            try:
                mine = converted.resources([other])
            except Exception:
                # The table refuses the value outright, e.g. a role that Azure doesn't have.
                continue
            names = {(one.type, one.name) for one in mine} | {(one.type, one.name) for one in converted.resources([made[at]])}
            if between([one for one in pulumi if (one.type, one.name) in names], mine).holds:
                unseen.append((resource.address, way))
    assert tried > 200
    assert unseen == []


@pytest.mark.parametrize(
    ("file", "old", "new", "path"),
    [
        ("gpu_pool", '? "Delete" : null', '? "Deallocate" : null', "properties.scaleSetEvictionPolicy"),
        ("gpu_pool", "nvidia.com/gpu=present", "nvidia.com/gpu=here", "properties.nodeTaints"),
        (
            "application_insights",
            "local_authentication_enabled = false",
            "local_authentication_enabled = true",
            "properties.DisableLocalAuth",
        ),
        ("storage", 'min_tls_version                  = "TLS1_2"', 'min_tls_version = "TLS1_0"', "properties.minimumTlsVersion"),
    ],
)
def test_a_change_in_a_module_is_reported(file: str, old: str, new: str, path: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "terraform", tmp_path / "terraform")
    module = tmp_path / "terraform" / "modules" / file / "main.tf"
    assert old in module.read_text()
    module.write_text(module.read_text().replace(old, new))
    assert path in {one.path for one in compare(stack_of("aks-full"), tmp_path / "terraform").unequal}


def test_two_admins_are_two_assignments_of_one_name_on_both_sides() -> None:
    stack = stack_of("aks-dev", f"aks.admins=['{ADMIN}','{ADMIN[:-1]}6']")

    def named(side: list[Resource]) -> list[str]:
        kind, admin = "Microsoft.Authorization/roleAssignments", "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b"
        return sorted(one.name for one in side if one.type == kind and admin in str(one.properties))

    pulumi = named(pulumi_side(stack))
    assert len(set(pulumi)) == 2
    assert pulumi == named(terraform_side(stack))


@pytest.mark.parametrize("name", FULL)
def test_the_end_of_a_stack_is_a_tag_on_everything_that_has_tags(name: str) -> None:
    for side in (pulumi_side, terraform_side):
        tagged = [one.properties for one in side(stack_of(name, "cost_guard.expires='2027-01-31T18:00:00Z'"))]
        own = [{key.split("tags.")[1] for key in found if "tags." in key} for found in tagged]
        assert sum(bool(keys) for keys in own) > 5
        assert all("expires" in keys for keys in own if keys)


def test_azurerm_4_and_5_are_told_the_same(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "terraform", tmp_path / "terraform")
    module = tmp_path / "terraform" / "modules" / "network" / "main.tf"
    assert '["Microsoft.Storage"] : []' in module.read_text()
    module.write_text(module.read_text().replace('["Microsoft.Storage"] : []', "[] : []"))
    with pytest.raises(SpecError, match=r"two arguments disagree on .*serviceEndpoints"):
        terraform_side(stack_of("aks-dev"), tmp_path / "terraform")


def test_a_resource_of_one_side_alone_is_reported(sides: tuple[list[Resource], list[Resource]]) -> None:
    pulumi, terraform = sides
    found = between(pulumi[1:], terraform)
    assert [(side, one.name) for side, one in found.alone] == [("terraform", pulumi[0].name)]
    assert not found.holds
    assert f"terraform alone: {pulumi[0].type}" in as_text(found)


def test_every_allowed_difference_has_a_use_and_a_reason(sides: tuple[list[Resource], list[Resource]]) -> None:
    used = {one.difference for name in STACKS for one in compare(stack_of(name)).allowed}
    assert used == set(ALLOWED)
    assert all(len(one.reason) > 20 for one in ALLOWED)


def test_json_names_every_property() -> None:
    found = compare(stack_of("vm-dev"))
    data = json.loads(json.dumps(as_json(found)))
    assert data["holds"] is True
    assert len(data["properties"]) == len(found.compared)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('locals {\n  x = bcrypt("a")\n}\noutput "o" {\n  value = local.x\n}\n', r"bcrypt\(\) isn't evaluated; there are: base64encode"),
        ('output "o" {\n  value = nothing.here\n}\n', r"nothing isn't known here"),
        ('variable "a" {\n  type = string\n}\n', r"variable a has no default"),
        ('variable "a" {\n  type = number\n  default = "x"\n}\n', r"a = 'x': must be a number"),
        ("resource {\n", r"isn't HCL"),
    ],
)
def test_what_cannot_be_evaluated_is_one_clear_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text(text)
    with pytest.raises(SpecError, match=message):
        Configuration(tmp_path, {}, converted.known).outputs["o"]


def test_a_cluster_that_exists_has_no_terraform() -> None:
    with pytest.raises(SpecError, match="makes nothing on Azure"):
        variables_of(stack_of("aks-dev", "target=kubernetes", "images.repository=registry.example/ncdemo"))
