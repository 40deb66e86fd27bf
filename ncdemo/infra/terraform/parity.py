"""Whether both sides of a stack build the same, property by property.

found = compare(load_stack("stacks/Pulumi.aks-full.yaml"))
found.unequal, found.share
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ncdemo.infra.render import render
from ncdemo.infra.stand_in import SUFFIX
from ncdemo.infra.terraform import converted, native
from ncdemo.infra.terraform.configuration import Configuration
from ncdemo.infra.terraform.differences import ALLOWED, Difference
from ncdemo.infra.terraform.normal import Resource
from ncdemo.infra.terraform.variables import variables_of
from ncdemo.spec.paths import PACKAGE
from ncdemo.spec.stack_file import Stack

UNSET = "unset"


@dataclass(frozen=True)
class Compared:
    """One property of one resource."""

    type: str
    name: str
    path: str
    pulumi: Any
    terraform: Any
    difference: Difference | None = None

    @property
    def equal(self) -> bool:
        return bool(self.pulumi == self.terraform)

    @property
    def known(self) -> bool:
        """Whether the property is in Azure's terms; an azurerm argument that the table doesn't have can't be compared."""
        return not self.path.startswith("azurerm:")


@dataclass(frozen=True)
class Parity:
    """All properties that either side sets."""

    compared: tuple[Compared, ...]
    alone: tuple[tuple[str, Resource], ...]
    """Resources that one side alone has, with that side."""

    @property
    def unequal(self) -> list[Compared]:
        return [one for one in self.compared if not one.equal and not one.difference]

    @property
    def allowed(self) -> list[Compared]:
        return [one for one in self.compared if one.difference]

    @property
    def share(self) -> float:
        """Properties that both sides set, over those that either sets: 1 minus what only one side says."""
        lone = sum(len(resource.properties) for _, resource in self.alone)
        both = sum(one.known and UNSET not in (one.pulumi, one.terraform) for one in self.compared)
        return both / max(1, len(self.compared) + lone)

    @property
    def holds(self) -> bool:
        return not self.unequal and not self.alone


def compare(stack: Stack, folder: Path = PACKAGE / "terraform") -> Parity:
    """Compare the Pulumi program with the Terraform configuration, both without a cloud."""
    return between(pulumi_side(stack), terraform_side(stack, folder))


def pulumi_side(stack: Stack, today: datetime.date | None = None) -> list[Resource]:
    rendered = render(stack, today=today)
    return [*native.resources(rendered), *native.namespaces(rendered)]


def terraform_side(stack: Stack, folder: Path = PACKAGE / "terraform") -> list[Resource]:
    variables = {**variables_of(stack), "suffix": SUFFIX}
    made = Configuration((folder / stack.spec.target).resolve(), variables, converted.known)
    texts = made.outputs.get("namespaces", "")
    spaces = [native.of_manifest(one) for one in yaml.safe_load_all(texts) if one]
    return [*converted.resources(made.resources), *spaces]


def between(pulumi: Iterable[Resource], terraform: Iterable[Resource]) -> Parity:
    """Compare what both sides make, whatever it was read from."""
    left, right = ({(one.type, one.name): one for one in side} for side in (pulumi, terraform))
    compared = [
        _compared(key, path, left[key].properties.get(path, UNSET), right[key].properties.get(path, UNSET))
        for key in sorted(left.keys() & right.keys())
        for path in sorted({*left[key].properties, *right[key].properties})
    ]
    alone = [("pulumi", left[key]) for key in sorted(left.keys() - right.keys())]
    alone += [("terraform", right[key]) for key in sorted(right.keys() - left.keys())]
    return Parity(tuple(compared), tuple(alone))


def _compared(key: tuple[str, str], path: str, pulumi: Any, terraform: Any) -> Compared:
    difference = None
    if pulumi != terraform:
        difference = next((one for one in ALLOWED if one.allows(key[0], path, str(pulumi), str(terraform))), None)
    return Compared(*key, path, pulumi, terraform, difference)
