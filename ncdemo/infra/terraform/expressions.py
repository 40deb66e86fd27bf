"""The value of a Terraform expression, from python-hcl2's syntax tree: what the modules use of the language, and no more.

evaluate(tree, {"var": {"name": "dev"}})          # "rg-ncdemo-${var.name}" -> "rg-ncdemo-dev"

Anything else is a SpecError that names it, so that a module never means something here that Terraform reads otherwise.
"""

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lark import Token, Tree

from ncdemo.infra.terraform.functions import FUNCTIONS
from ncdemo.spec.base import SpecError

Scope = Mapping[str, Any]
LITERALS = {"true": True, "false": False, "null": None}
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b and isinstance(a, bool) == isinstance(b, bool),
    "!=": lambda a, b: not OPERATORS["=="](a, b),
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


def evaluate(tree: Tree[Token], scope: Scope) -> Any:
    """Return the value as Python has it: None, bool, int, float, str, list, dict."""
    rule = RULES.get(tree.data)
    if rule is None:
        raise SpecError(f"terraform: the expression form {tree.data!r} isn't evaluated; write it otherwise, or add it to expressions.py")
    return rule(tree, scope)


def parts(tree: Tree[Token]) -> list[Tree[Token]]:
    """Return the children that mean something."""
    return [child for child in tree.children if isinstance(child, Tree) and child.data != "new_line_or_comment"]


def word(tree: Tree[Token]) -> str:
    return str(tree.children[0])


def text_of(value: Any) -> str:
    """Return a value as a template shows it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value)
    raise SpecError(f"terraform: a template holds text and numbers alone; write it without {value!r}")


def _identifier(tree: Tree[Token], scope: Scope) -> Any:
    if word(tree) not in scope:
        raise SpecError(f"terraform: {word(tree)} isn't known here; there are: {', '.join(sorted(scope))}")
    return scope[word(tree)]


def _string(tree: Tree[Token], scope: Scope) -> Any:
    pieces = [_piece(part, scope) for part in parts(tree)]
    return pieces[0] if len(pieces) == 1 and not isinstance(pieces[0], str) else "".join(map(text_of, pieces))


def _piece(part: Tree[Token], scope: Scope) -> Any:
    inner = part.children[0]
    if isinstance(inner, Tree):
        return evaluate(parts(inner)[0], scope)
    return json.loads(f'"{str(inner).replace("$${", "${").replace("%%{", "%{")}"')


def _attribute(value: Any, key: str) -> Any:
    try:
        return value[key]
    except (KeyError, TypeError):
        raise SpecError(f"terraform: there is no attribute {key!r} in {value!r}"[:300]) from None


def _step(tree: Tree[Token], scope: Scope, value: Any) -> Any:
    """Follow one .name or [index]."""
    if tree.data == "get_attr":
        return _attribute(value, word(parts(tree)[0]))
    if tree.data == "braces_index":
        index = evaluate(parts(tree)[0], scope)
        return value[int(index)] if isinstance(value, list) else _attribute(value, index)
    raise SpecError(f"terraform: the index form {tree.data!r} isn't evaluated; write [index]")


def _traverse(tree: Tree[Token], scope: Scope) -> Any:
    of, step = parts(tree)
    return _step(step, scope, evaluate(of, scope))


def _splat(tree: Tree[Token], scope: Scope) -> Any:
    of, steps = parts(tree)
    found = []
    for value in evaluate(of, scope):
        for step in parts(steps):
            value = _step(step, scope, value)
        found.append(value)
    return found


def _conditional(tree: Tree[Token], scope: Scope) -> Any:
    condition, yes, no = parts(tree)
    return evaluate(yes if evaluate(condition, scope) else no, scope)


def _binary(tree: Tree[Token], scope: Scope) -> Any:
    left, term = parts(tree)
    sign, right = parts(term)
    value = evaluate(left, scope)
    if word(sign) in ("&&", "||"):
        return value if value == (word(sign) == "||") else evaluate(right, scope)
    return OPERATORS[word(sign)](value, evaluate(right, scope))


def _unary(tree: Tree[Token], scope: Scope) -> Any:
    value = evaluate(parts(tree)[0], scope)
    return not value if str(tree.children[0]) == "!" else -value


def _call(tree: Tree[Token], scope: Scope) -> Any:
    name, *rest = parts(tree)
    if word(name) not in FUNCTIONS:
        raise SpecError(f"terraform: the function {word(name)}() isn't evaluated; there are: {', '.join(FUNCTIONS)}")
    arguments = [evaluate(one, scope) for one in parts(rest[0])] if rest else []
    if rest and any(isinstance(c, Token) and c.type == "ELLIPSIS" for c in rest[0].children):
        arguments[-1:] = arguments[-1]
    return FUNCTIONS[word(name)](*arguments)


def _key(tree: Tree[Token], scope: Scope) -> str:
    """An object's key: a bare word is itself, anything in parentheses or quotes is evaluated."""
    inner = parts(tree)[0]
    bare = parts(inner)[0] if inner.data == "expr_term" and len(inner.children) == 1 else inner
    return word(bare) if bare.data in ("identifier", "keyword") else str(evaluate(inner, scope))


def _object(tree: Tree[Token], scope: Scope) -> dict[str, Any]:
    return {_key(parts(element)[0], scope): evaluate(parts(element)[1], scope) for element in parts(tree)}


def _each(tree: Tree[Token], scope: Scope) -> Iterator[tuple[dict[str, Any], list[Tree[Token]]]]:
    """Yield the scope of every turn of a for that its `if` lets pass, and the for's result expressions."""
    intro, *results = parts(tree)
    *names, over = parts(intro)
    condition = results.pop() if results[-1].data == "for_cond" else None
    values = evaluate(over, scope)
    pairs = enumerate(values) if isinstance(values, list) else ((key, values[key]) for key in sorted(values))
    for key, value in pairs:
        own = zip(map(word, names), (key, value) if len(names) == 2 else (value,), strict=True)
        inner = {**scope, **dict(own)}
        if condition is None or evaluate(parts(condition)[0], inner):
            yield inner, results


RULES: dict[str, Callable[[Tree[Token], Scope], Any]] = {
    "expr_term": lambda tree, scope: evaluate(parts(tree)[0], scope),
    "literal_value": lambda tree, scope: LITERALS[word(tree)],
    "int_lit": lambda tree, scope: int(word(tree)),
    "float_lit": lambda tree, scope: float(word(tree)),
    "identifier": _identifier,
    "string": _string,
    "tuple": lambda tree, scope: [evaluate(one, scope) for one in parts(tree)],
    "object": _object,
    "get_attr_expr_term": _traverse,
    "index_expr_term": _traverse,
    "full_splat_expr_term": _splat,
    "conditional": _conditional,
    "binary_op": _binary,
    "unary_op": _unary,
    "function_call": _call,
    "for_tuple_expr": lambda tree, scope: [evaluate(results[0], inner) for inner, results in _each(tree, scope)],
    "for_object_expr": lambda tree, scope: {evaluate(k, inner): evaluate(v, inner) for inner, (k, v) in _each(tree, scope)},
}
