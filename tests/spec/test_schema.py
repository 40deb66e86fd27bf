"""The exported JSON schema, which editors and docs use, says what the source says."""

import ast
import importlib
import inspect
from typing import Any

import pytest

from ncdemo.spec import SPECS
from ncdemo.spec.allowed import PATTERNS, schema_of

SECTIONS = [
    (kind, model)
    for kind, root in SPECS.items()
    for model in [root.model_json_schema(), *root.model_json_schema().get("$defs", {}).values()]
]


def _documented(path: str) -> set[tuple[str, str]]:
    """Return (class, field) of every field with a docstring in a module."""
    tree = ast.parse(inspect.getsource(importlib.import_module(path)))
    found = set()
    for node in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        for field, after in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found.add((node.name, field.target.id))
    return found


def _leaves(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [leaf for one in schema for leaf in _leaves(one)]
    return [schema, *(leaf for one in schema.values() for leaf in _leaves(one))] if isinstance(schema, dict) else []


@pytest.mark.parametrize(("kind", "section"), SECTIONS, ids=lambda value: value if isinstance(value, str) else value["title"])
def test_sections_refuse_unknown_keys(kind: str, section: dict[str, Any]) -> None:
    assert section["additionalProperties"] is False, f"{kind}: {section['title']}"


@pytest.mark.parametrize("kind", SPECS)
def test_docstrings_of_fields_are_their_descriptions(kind: str) -> None:
    sections = {section["title"]: section for one, section in SECTIONS if one == kind}
    modules = {"ncdemo.spec.common", SPECS[kind].__module__}
    documented = [(name, field) for module in modules for name, field in _documented(module) if name in sections]
    assert len(documented) > 10
    for name, field in documented:
        assert sections[name]["properties"][field].get("description"), f"{name}.{field}"


@pytest.mark.parametrize("kind", SPECS)
def test_every_pattern_has_words(kind: str) -> None:
    patterns = {leaf["pattern"] for leaf in _leaves(schema_of(SPECS[kind])) if isinstance(leaf.get("pattern"), str)}
    assert patterns
    assert patterns <= set(PATTERNS), "say in ncdemo/spec/allowed.py what the pattern means"


@pytest.mark.parametrize("kind", SPECS)
def test_no_section_of_a_schema_is_silent(kind: str) -> None:
    silent = [s["title"] for one, s in SECTIONS if one == kind and not s.get("description")]
    assert silent == [], "give the class a docstring"
