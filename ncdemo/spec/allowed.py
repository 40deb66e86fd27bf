"""What a spec allows at a key, in words, from the JSON schema of its model: one source for every message.

in_words(at(schema_of(TrainSpec), ("train", "max_steps"), {}))  # "a whole number of at least 1, or null"
"""

import functools
from typing import Any

from pydantic import BaseModel

from ncdemo.spec.common import PATTERNS
from ncdemo.spec.show import Keys

Schema = dict[str, Any]
LIMITS = {"minimum": "at least", "exclusiveMinimum": "greater than", "maximum": "at most", "exclusiveMaximum": "less than"}


@functools.cache
def schema_of(model: type[BaseModel]) -> Schema:
    """Return the model's JSON schema with every reference replaced by what it refers to."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, list):
            return [inline(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            part = {**definitions[part["$ref"].rsplit("/", 1)[-1]], **part}
        return {key: inline(value) for key, value in part.items() if key not in ("$ref", "$defs")}

    whole: Schema = inline(schema)
    return whole


def at(schema: Schema, path: Keys, data: Any) -> list[Schema]:
    """Return the alternatives allowed at a path; those that a constant of `data` rules out (kind: vm) are left out."""
    here = _alternatives(schema, data)
    for part in path:
        data = _child(data, part)
        here = [one for s in here for below in _below(s, part) for one in _alternatives(below, data)]
    return here


def _child(data: Any, part: str | int) -> Any:
    if isinstance(data, list) and isinstance(part, int):
        return data[part]
    return data[part] if isinstance(data, dict) and part in data else None


def in_words(alternatives: list[Schema]) -> str:
    """Return what is allowed, null last; "" where the schema doesn't say."""
    words = [_words(s) for s in sorted(alternatives, key=lambda s: s.get("type") == "null")]
    return ", or ".join(dict.fromkeys(filter(None, words)))


def keys(alternatives: list[Schema]) -> list[str]:
    return sorted({key for s in alternatives for key in s.get("properties", {})})


def takes(schema: Schema, value: Any) -> bool:
    """Say whether a schema may allow a value, going by its type and constants alone."""
    types = {bool: ["boolean"], int: ["integer", "number"], float: ["number"], str: ["string"]}
    constants = [schema["const"]] if "const" in schema else schema.get("enum", [value])
    return schema.get("type") in types.get(type(value), []) and value in constants


def homes(schema: Schema, key: str, above: Keys = ()) -> list[Keys]:
    """Return every path in the schema that ends in a key."""
    found = homes(schema["items"], key, above) if isinstance(schema.get("items"), dict) else []
    for name, child in schema.get("properties", {}).items():
        found += [(*above, name)] if name == key else []
        found += homes(child, key, (*above, name))
    return found


def _alternatives(schema: Schema, data: Any) -> list[Schema]:
    nested = schema.get("anyOf") or schema.get("oneOf")
    found = [one for s in nested for one in _alternatives(s, data)] if nested else [schema]
    fits = [s for s in found if isinstance(data, dict) and all(data.get(k, c) == c for k, c in _constants(s))]
    return fits or found


def _constants(schema: Schema) -> list[tuple[str, Any]]:
    return [(key, s["const"]) for key, s in schema.get("properties", {}).items() if "const" in s]


def _below(schema: Schema, part: str | int) -> list[Schema]:
    if isinstance(part, int):
        return [schema["items"]] if "items" in schema else []
    open_ended = [s for s in (schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()) if isinstance(s, dict)]
    return [schema["properties"][part]] if part in schema.get("properties", {}) else open_ended


def _words(schema: Schema) -> str:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values:
        return " or ".join(filter(None, [", ".join(map(repr, values[:-1])), repr(values[-1])]))
    match schema.get("type"):
        case "integer" | "number" as kind:
            limits = " and ".join(f"{words} {str(schema[key]).removesuffix('.0')}" for key, words in LIMITS.items() if key in schema)
            return f"a {'whole ' * (kind == 'integer')}number {'of ' * limits.startswith('at')}{limits}".rstrip()
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case "string" if "pattern" in schema:
            return PATTERNS.get(schema["pattern"], f"text that matches {schema['pattern']}")
        case "string":
            low, high = schema.get("minLength", 0), schema.get("maxLength")
            return f"text of {low} to {high} characters" if high else "text that is not empty" if low else "text"
        case "array":
            least = schema.get("minItems")
            head = f"a list of at least {least}" if least else "a list"
            each = in_words(_alternatives(schema.get("items", {}), None))
            return f"{head}, each {each}" if each else head
        case "object" if schema.get("properties"):
            return f"a mapping with keys from: {', '.join(keys([schema]))}"
        case "object":
            return "a mapping"
        case _:
            return ""
