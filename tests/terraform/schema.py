"""Every block and argument of a Terraform file against a provider's schema: unknown, missing, deprecated, of the wrong kind.

`terraform validate` says the same where its binary is at hand, but for what is deprecated: of that it only warns.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
from lark import Token, Tree

from ncdemo.infra.terraform.expressions import parts, word

Body = Tree[Token]
META = {"for_each", "depends_on", "lifecycle", "count", "provider"}
LITERALS = {"string": "string", "int_lit": "number", "float_lit": "number", "tuple": "list", "object": "map"}


def problems(path: Path, schema: dict[str, Any]) -> Iterator[str]:
    """Yield a line per fault of the resources, data and provider settings of a file."""
    for kind, labels, body in blocks(body_of(path)):
        if kind in ("resource", "data"):
            known = schema["resource_schemas" if kind == "resource" else "data_source_schemas"]
            at = f"{path.parent.name}/{path.name}: {labels[0]}"
            yield from _body(body, known[labels[0]]["block"], at) if labels[0] in known else [f"{at}: unknown"]
        elif kind == "provider" and labels[0] == "azurerm":
            yield from _body(body, schema["provider_schema"]["block"], f"{path.parent.name}/{path.name}: provider")


def body_of(path: Path) -> Body:
    return parts(hcl2.parses_to_tree(path.read_text()))[0]


def blocks(body: Body) -> Iterator[tuple[str, list[str], Body]]:
    for one in parts(body):
        if one.data == "block":
            kind, *labels, inner = parts(one)
            yield word(kind), [word(parts(label)[0]) if parts(label) else word(label) for label in labels], inner


def attributes(body: Body) -> dict[str, Body]:
    return {word(parts(one)[0]): parts(one)[1] for one in parts(body) if one.data == "attribute"}


def _body(body: Body, schema: dict[str, Any], at: str) -> Iterator[str]:
    known, nested = schema.get("attributes", {}), schema.get("block_types", {})
    given = attributes(body)
    for name, value in given.items():
        one = known.get(name)
        if name in META:
            continue
        if one is None:
            yield f"{at}.{name}: unknown"
        else:
            yield from _argument(one, value, f"{at}.{name}")
    seen: dict[str, bool] = {}
    for name, labels, inner in blocks(body):
        dynamic = name == "dynamic"
        name, inner = (labels[0], next(one for kind, _, one in blocks(inner) if kind == "content")) if dynamic else (name, inner)
        if name in META:
            continue
        if name not in nested:
            # A list of objects can be written as blocks, too.
            if name not in known:
                yield f"{at}.{name}: unknown block"
            continue
        seen[name] = True
        if nested[name]["block"].get("deprecated"):
            yield f"{at}.{name}: deprecated"
        yield from _body(inner, nested[name]["block"], f"{at}.{name}")
    missing = [name for name, one in known.items() if one.get("required") and name not in given]
    missing += [name for name, one in nested.items() if one.get("min_items") and name not in seen]
    yield from (f"{at}.{name}: missing" for name in missing)


def _argument(schema: dict[str, Any], value: Body, at: str) -> Iterator[str]:
    if schema.get("deprecated"):
        yield f"{at}: deprecated"
    if not (schema.get("required") or schema.get("optional")):
        yield f"{at}: read-only"
    kind, literal = schema["type"], parts(value)[0].data if value.data == "expr_term" and parts(value) else None
    wanted = kind if isinstance(kind, str) else {"set": "list"}.get(kind[0], kind[0])
    found = LITERALS.get(str(literal), wanted)
    if literal == "literal_value":
        found = {"true": "bool", "false": "bool", "null": wanted}[word(parts(value)[0])]
    if found != wanted:
        yield f"{at}: is a {found}, must be a {wanted}"
