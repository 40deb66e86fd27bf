"""A Terraform configuration as what it would make: modules opened, for_each spread, every argument evaluated.

made = Configuration(folder, {"name": "dev", "pools": [...]}, known)
made.resources                    # [Made("azurerm_resource_group", "azurerm_resource_group.stack", {"name": "rg-ncdemo-dev", ...})]

Read from the files alone, with no Terraform, no provider and no cloud. `known` says what only Azure knows (ids, issuers).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import hcl2
from lark import Token, Tree

from ncdemo.infra.terraform.expressions import evaluate, parts, word
from ncdemo.infra.terraform.types import typed
from ncdemo.spec.base import SpecError

META = ("for_each", "depends_on", "lifecycle", "provider")
CALL = (*META, "source", "version", "providers")
Known = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Made:
    """One resource instance."""

    type: str
    address: str
    arguments: dict[str, Any]
    """Blocks are lists of mappings; what is null is left out."""


class _Lazy(dict[str, Any]):
    """Names that are evaluated when they are asked for."""

    def __init__(self, names: Any, value_of: Callable[[str], Any]) -> None:
        super().__init__(dict.fromkeys(names))
        self._value_of = value_of
        self._found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = self._value_of(name)
        return self._found[name]

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        return [self[name] for name in self]


class Configuration:
    """One module, called with these variables."""

    def __init__(self, folder: Path, variables: dict[str, Any], known: Known, address: str = "") -> None:
        self._folder, self._known, self._address = folder, known, address
        self._blocks = [block for path in sorted(folder.glob("*.tf")) for block in _parsed(path)]
        if not self._blocks:
            raise SpecError(f"{folder}: there is no Terraform configuration; give a folder with .tf files, e.g. terraform/examples/aks")
        self.resources: list[Made] = []
        declared = {labels[0]: body for kind, labels, body in self._blocks if kind == "variable"}
        if unknown := sorted(variables.keys() - declared.keys()):
            raise SpecError(f"{folder.name}: no variable {unknown[0]!r}; there are: {', '.join(sorted(declared))}")
        self._scope: dict[str, Any] = {
            "var": {name: self._variable(name, body, variables) for name, body in declared.items()},
            "path": {"module": str(folder)},
        }
        locals_ = {name: tree for kind, _, body in self._blocks if kind == "locals" for name, tree in _attributes(body).items()}
        self._scope["local"] = _Lazy(locals_, lambda name: evaluate(locals_[name], self._scope))
        calls = {labels[0]: body for kind, labels, body in self._blocks if kind == "module"}
        self._scope["module"] = _Lazy(
            calls, lambda name: self._spread(calls[name], lambda key, scope: self._call(name, calls[name], key, scope))
        )
        for kind in ("resource", "data"):
            self._declare(kind)
        outputs = {labels[0]: _attributes(body)["value"] for kind, labels, body in self._blocks if kind == "output"}
        self.outputs = _Lazy(outputs, lambda name: evaluate(outputs[name], self._scope))
        self._everything()

    def _variable(self, name: str, body: Tree[Token], given: dict[str, Any]) -> Any:
        own = _attributes(body)
        if name not in given and "default" not in own:
            raise SpecError(f"{self._folder.name}: variable {name} has no default, and no value was given; give it one in the .tfvars")
        return typed(given[name] if name in given else evaluate(own["default"], {}), own["type"], f"{self._folder.name}: {name}")

    def _declare(self, kind: str) -> None:
        """Make resources (or data) known by type and name, each evaluated when it is asked for."""
        found: dict[str, dict[str, Tree[Token]]] = {}
        for _, (type_, name), body in (block for block in self._blocks if block[0] == kind):
            found.setdefault(type_, {})[name] = body
        into = self._scope if kind == "resource" else self._scope.setdefault("data", {})
        for type_, bodies in found.items():
            into[type_] = _Lazy(bodies, partial(self._named, kind, type_, bodies))

    def _named(self, kind: str, type_: str, bodies: dict[str, Tree[Token]], name: str) -> Any:
        return self._resources(kind, type_, name, bodies[name])

    def _resources(self, kind: str, type_: str, name: str, body: Tree[Token]) -> Any:
        def make(key: str | None, scope: dict[str, Any]) -> dict[str, Any]:
            arguments = _evaluated(body, scope)
            if kind == "resource":
                at = f"{self._address}{type_}.{name}" + (f'["{key}"]' if key is not None else "")
                self.resources.append(Made(type_, at, arguments))
            return {**arguments, **self._known(type_, arguments)}

        return self._spread(body, make)

    def _call(self, name: str, body: Tree[Token], key: str | None, scope: dict[str, Any]) -> Any:
        own = _attributes(body)
        given = {name: evaluate(tree, scope) for name, tree in own.items() if name not in CALL}
        folder = (self._folder / evaluate(own["source"], {})).resolve()
        at = f"{self._address}module.{name}" + (f'["{key}"]' if key is not None else "") + "."
        made = Configuration(folder, given, self._known, at)
        self.resources += made.resources
        return made.outputs

    def _spread(self, body: Tree[Token], make: Callable[[str | None, dict[str, Any]], Any]) -> Any:
        own = _attributes(body)
        if "for_each" not in own:
            return make(None, self._scope)
        over = evaluate(own["for_each"], self._scope)
        return {key: make(key, {**self._scope, "each": {"key": key, "value": over[key]}}) for key in over}

    def _everything(self) -> None:
        for kind, labels, _ in self._blocks:
            if kind == "resource":
                self._scope[labels[0]][labels[1]]
            elif kind == "module":
                self._scope["module"][labels[0]]


def _evaluated(body: Tree[Token], scope: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments and blocks of a body."""
    found = {name: evaluate(tree, scope) for name, tree in _attributes(body).items() if name not in META}
    made = {name: value for name, value in found.items() if value is not None}
    for kind, labels, inner in _blocks(body):
        if kind == "dynamic":
            over = evaluate(_attributes(inner)["for_each"], scope)
            content = next(one for name, _, one in _blocks(inner) if name == "content")
            pairs = over.items() if isinstance(over, dict) else enumerate(over)
            items = [_evaluated(content, {**scope, labels[0]: {"key": key, "value": value}}) for key, value in pairs]
            made |= {labels[0]: [*made.get(labels[0], []), *items]} if items else {}
        elif kind not in META:
            made[kind] = [*made.get(kind, []), _evaluated(inner, scope)]
    return made


def _attributes(body: Tree[Token]) -> dict[str, Tree[Token]]:
    return {word(parts(one)[0]): parts(one)[1] for one in parts(body) if one.data == "attribute"}


def _blocks(body: Tree[Token]) -> Iterator[tuple[str, tuple[str, ...], Tree[Token]]]:
    for one in parts(body):
        if one.data == "block":
            kind, *labels, inner = parts(one)
            yield word(kind), tuple(str(evaluate(label, {})) for label in labels), inner


@cache
def _parsed(path: Path) -> tuple[tuple[str, tuple[str, ...], Tree[Token]], ...]:
    try:
        return tuple(_blocks(parts(hcl2.parses_to_tree(path.read_text(encoding="utf-8")))[0]))
    except Exception as error:
        raise SpecError(f"{path}: isn't HCL: {str(error).splitlines()[0]}; correct it there") from None
