"""What a table of azurerm types is written in: a type, its arguments' places in Azure, and how a value changes on the way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Convert:
    """Where an argument goes when its value changes on the way."""

    path: str
    of: Callable[[Any], Any]


@dataclass(frozen=True)
class Kind:
    """One azurerm type."""

    azure: str
    name: Callable[[Arguments], str]
    paths: dict[str, str | Convert | None]
    """Argument, blocks dotted, -> Azure's property."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Sent by azurerm whatever the arguments."""
    keys: dict[str, str] = field(default_factory=dict)
    """Repeated block -> the argument that names its items."""
    when: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Argument -> what azurerm sends along with it."""


def tail(value: Any, parts: int = 1) -> str:
    """Return the last names of an id."""
    return "/".join(str(value).split("/")[-1 - 2 * (parts - 1) :: 2])


def on(value: bool, yes: str = "Enabled", no: str = "Disabled") -> str:
    return yes if value else no


P = "properties."
PLACE: dict[str, str | Convert | None] = {"name": None, "resource_group_name": None, "location": "location", "tags": "tags"}
IDENTITY: dict[str, str | Convert | None] = {"identity.type": "identity.type", "identity.identity_ids": "identity.userAssignedIdentities"}


def own(arguments: Arguments) -> str:
    return str(arguments["name"])


def below(parent: str) -> Callable[[Arguments], str]:
    return lambda arguments: f"{tail(arguments[parent])}/{arguments['name']}"


IP = P + "ipConfigurations[{key}]."
