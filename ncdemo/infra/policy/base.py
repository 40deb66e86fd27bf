"""What a rule is, how it reads a resource's inputs, and the one-property rule that most rules are.

A rule says only what is certain. A value that the engine doesn't know yet is UNKNOWN, and no rule complains of it; a
missing value counts where the service's own default is the unsafe one.

python -c "from ncdemo.infra.policy import RULES; print(*(f'{rule.name}: {rule.description}' for rule in RULES), sep='\\n')"
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol

Inputs = Mapping[str, Any]
"""A resource's inputs as its provider gets them: camelCase keys, JSON values, UNKNOWN where nothing is known yet."""

Enforcement = Literal["mandatory", "advisory"]
"""mandatory stops an update, advisory only tells."""


class _Unknown(Enum):
    UNKNOWN = "not known before the update"


UNKNOWN = _Unknown.UNKNOWN


class Resource(Protocol):
    """What rules see of a resource: its type token, its logical name, its inputs (a whole manifest for Kubernetes)."""

    @property
    def type(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> Inputs: ...


@dataclass(frozen=True)
class Rule:
    """A law for one resource at a time: `check(type token, logical name, inputs)` yields a line for every breach."""

    name: str
    description: str
    check: Callable[[str, str, Inputs], Iterator[str]]
    enforcement: Enforcement = "mandatory"


@dataclass(frozen=True)
class StackRule:
    """A law for a whole stack: `check(resources)` yields the resource at fault (None: the stack) and a line."""

    name: str
    description: str
    check: Callable[[Sequence[Resource]], Iterator[tuple[Resource | None, str]]]
    enforcement: Enforcement = "mandatory"


@dataclass(frozen=True)
class Finding:
    """A breach of a rule; type and name are empty where the stack as a whole is at fault."""

    rule: str
    enforcement: Enforcement
    type: str
    name: str
    message: str

    def __str__(self) -> str:
        where = f"{self.type} {self.name}" if self.type else "stack"
        return f"{where}: {self.rule} ({self.enforcement}): {self.message}"


def kind_of(type_token: str) -> str:
    """Return an azure-native token without package and API version (network:Subnet); any other token as it is."""
    return re.sub(r"^azure-native(?:_\w+)?:(\w+)(?:/\w+)?:", r"\1:", type_token)


def read(inputs: Any, *path: str) -> Any:
    """Return the value at a path; None where it is missing, UNKNOWN where it or a parent isn't known yet."""
    for key in path:
        if inputs is UNKNOWN:
            return UNKNOWN
        inputs = inputs.get(key) if isinstance(inputs, Mapping) else None
    return inputs


def listed(inputs: Any, *path: str) -> list[Any]:
    """Return the known items of the list at a path; [] for anything that is no list."""
    value = read(inputs, *path)
    return [item for item in value if item is not UNKNOWN] if isinstance(value, list) else []


def objects(inputs: Any, *path: str) -> list[Inputs]:
    """Return the known objects of the list at a path."""
    return [item for item in listed(inputs, *path) if isinstance(item, Mapping)]


def rule(name: str, description: str, *kinds: str, enforcement: Enforcement = "mandatory") -> Callable[..., Rule]:
    """Make a Rule of a generator over the inputs of some kinds of resource."""

    def make(check: Callable[[Inputs], Iterator[str]]) -> Rule:
        def over(type_token: str, _name: str, inputs: Inputs) -> Iterator[str]:
            if kind_of(type_token) in kinds:
                yield from check(inputs)

        return Rule(name, description, over, enforcement)

    return make


def setting(name: str, kind: str, path: str, allowed: tuple[Any, ...], description: str) -> Rule:
    """Make a Rule that the property at a dotted path has one of the allowed values; None allows it to be missing."""

    def check(inputs: Inputs) -> Iterator[str]:
        value = read(inputs, *path.split("."))
        if value is not UNKNOWN and value not in allowed:
            yield f"{path} is {_shown(value)}; allowed: {', '.join(_shown(each) for each in allowed)}"

    return rule(name, description, kind)(check)


def _shown(value: Any) -> str:
    return "missing" if value is None else json.dumps(value, default=str)
