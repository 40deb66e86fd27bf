"""Terraform's variable types: defaults of optional() filled in, keys that an object doesn't have refused."""

from typing import Any

from lark import Token, Tree

from ncdemo.infra.terraform.expressions import evaluate, parts, word
from ncdemo.spec.base import SpecError

SCALARS: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "bool": (bool,)}


def typed(value: Any, declared: Tree[Token], where: str) -> Any:
    """Return a value as its variable's type has it. Raise SpecError where it doesn't fit."""
    tree = parts(declared)[0] if declared.data == "expr_term" else declared
    if value is None:
        return None
    if tree.data == "identifier":
        if not isinstance(value, SCALARS[word(tree)]) or (word(tree) == "number" and isinstance(value, bool)):
            raise SpecError(f"{where} = {value!r}: must be a {word(tree)}")
        return value
    name, arguments = word(parts(tree)[0]), parts(parts(tree)[1])
    if name == "list" and isinstance(value, list):
        return [typed(one, arguments[0], f"{where}.{at}") for at, one in enumerate(value)]
    if name == "map" and isinstance(value, dict):
        return {key: typed(one, arguments[0], f"{where}.{key}") for key, one in value.items()}
    if name == "object" and isinstance(value, dict):
        return _object(value, parts(arguments[0])[0], where)
    raise SpecError(f"{where} = {value!r}: must be a {name}")


def _object(value: dict[str, Any], declared: Tree[Token], where: str) -> dict[str, Any]:
    """Terraform drops keys that a type doesn't have; so does this, as the roots hand whole objects on to modules."""
    made = {}
    for element in parts(declared):
        key, type_ = word(parts(parts(parts(element)[0])[0])[0]), parts(element)[1]
        call = parts(type_)[0]
        optional = call.data == "function_call" and word(parts(call)[0]) == "optional"
        if not optional and key not in value:
            raise SpecError(f"{where}: {key} is needed; add it")
        if optional:
            type_, *default = parts(parts(call)[1])
            if value.get(key) is None:
                value = {**value, key: evaluate(default[0], {}) if default else None}
        made[key] = typed(value[key], type_, f"{where}.{key}")
    return made
