"""The pages of specs, from their models' JSON schemas: a section per mapping, in the order of the file."""

import re
from collections.abc import Iterator

from ncdemo.spec import SPECS
from ncdemo.spec.allowed import Schema, in_words
from ncdemo.spec.common import PATTERNS
from ncdemo.spec.show import shown
from scripts.reference.markdown import anchor, page, table

INTROS = {
    "train": "One fine-tuning run: what `ncdemo train` takes, and a stack's job of this kind. How strategies differ: [training](../training.md).",
    "bench": "One benchmark: what `ncdemo bench run` takes, and a stack's job of this kind. What is measured: [measurement](../measurement.md).",
    "stack": "Capacity and jobs: what `ncdemo stack` takes. In `stacks/Pulumi.NAME.yaml` each key of the top level is written "
    "`ncdemo:KEY` below `config:`. What is made of it: [Azure](../azure.md).",
}


def spec_page(kind: str) -> str:
    """Return the page of one kind of spec: a section per mapping, in the order of the file."""
    schema = SPECS[kind].model_json_schema()
    found = list(sections(schema, schema, ""))
    tree = "\n".join(f"{'  ' * path.count('.')}- [`{path}`]({anchor(path)}): {about['description']}" for path, about in found if path)
    body = []
    for path, about in found:
        rows = [field(schema, path, key, one, key in about.get("required", ())) for key, one in about["properties"].items()]
        body.append(
            f"## {path or 'Top level'}\n\n{about['description']}\n\n{table(('key', 'default', 'meaning, and what is allowed'), rows)}"
        )
    check = f"    ncdemo spec check {kind} FILE      # every default filled in\n    ncdemo spec schema {kind}          # the JSON schema, for editors"
    rules = "Keys that aren't here are refused. `[]` after a key: a list, and what each of its entries is."
    return page(f"Spec: {kind}", INTROS[kind], check, f"{rules}\n\n{tree}", *body)


def sections(schema: Schema, about: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Yield (dotted path, schema) of every mapping with named keys, each before what is in it."""
    yield path, about
    for key, one in about["properties"].items():
        for below, suffix in children(schema, one):
            yield from sections(schema, below, f"{path}.{key}{suffix}".lstrip("."))


def children(schema: Schema, about: Schema) -> Iterator[tuple[Schema, str]]:
    """Yield the mappings that a key's value may be, or the entries of its list."""
    for one in alternatives(schema, about):
        if "properties" in one:
            yield one, ""
        elif isinstance(one.get("items"), dict):
            yield from ((entry, "[]") for entry in alternatives(schema, one["items"]) if "properties" in entry)


def alternatives(schema: Schema, about: Schema) -> list[Schema]:
    """Return what a value may be, references followed."""
    if "$ref" in about:
        about = schema["$defs"][about["$ref"].rsplit("/", 1)[-1]]
    nested = about.get("anyOf") or about.get("oneOf")
    return [one for part in nested for one in alternatives(schema, part)] if nested else [about]


def field(schema: Schema, path: str, key: str, about: Schema, required: bool) -> tuple[str, str, str]:
    """Return a key's row."""
    below = [f"{path}.{key}{suffix}".lstrip(".") for _, suffix in children(schema, about)]
    words = "" if below else in_words([expanded(schema, one) for one in alternatives(schema, about)]) + mapping(schema, about)
    words = re.sub(r"'([\w.-]+)'", r"`\1`", words)
    note = f"*{words[:1].upper()}{words[1:]}.*" if words and "const" not in about else ""
    note = "See [VM sizes](vm-sizes.md)." if key == "vm_size" else note
    where = " ".join(f"See [{one}]({anchor(one)})." for one in below)
    text = " ".join(filter(None, [about.get("description", ""), note, where]))
    return f"`{key}`", "required" if required else default(about), text


def expanded(schema: Schema, about: Schema) -> Schema:
    """Return a schema whose list entries are inlined."""
    return {**about, "items": {"anyOf": alternatives(schema, about["items"])}} if isinstance(about.get("items"), dict) else about


def mapping(schema: Schema, about: Schema) -> str:
    """Return what the keys and values of an open mapping are, in words."""
    if about.get("type") != "object":
        return ""
    name = next((words for pattern in about.get("patternProperties", {}) for words in [PATTERNS.get(pattern)] if words), None)
    name = name or in_words(alternatives(schema, about.get("propertyNames", {})))
    values = [*about.get("patternProperties", {}).values(), about.get("additionalProperties")]
    value = next((in_words(alternatives(schema, one)) for one in values if isinstance(one, dict)), "")
    return f"{f'; each key: {name}' if name else ''}{f'; each value: {value}' if value else ''}"


def default(about: Schema) -> str:
    value = about.get("default")
    if isinstance(value, dict):
        return "empty" if not value and "$ref" not in about else ""
    if isinstance(value, list):
        return "one, all defaults" if any(isinstance(one, dict) for one in value) else f"`[{', '.join(map(plain, value))}]`"
    return f"`{plain(value)}`" if value != "" else "empty"


def plain(value: object) -> str:
    return value if isinstance(value, str) else shown(value)
