"""What pydantic found wrong, as one line per mistake: where, key = value: what is allowed; what to do.

    lines = explain(error, TrainSpec, data, places, "demo.yaml")

pydantic reports a union once per member and a list again for each bad entry; here each key is reported once.
"""

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ncdemo.spec.allowed import Schema, at, homes, in_words, keys, schema_of
from ncdemo.spec.read import Place
from ncdemo.spec.remedy import lookup, remedy
from ncdemo.spec.show import Keys, bare, dotted, shown

MAX_LINES = 20
# Beside every *_type: what the schema's words tell fully. All else keeps pydantic's own message.
IN_SCHEMA = {
    "int_from_float",
    "finite_number",
    "literal_error",
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
    "string_too_short",
    "string_pattern_mismatch",
    "too_short",
}


def explain(error: ValidationError, model: type[BaseModel], data: Any, places: dict[Keys, Place], source: str) -> list[str]:
    """Return at most MAX_LINES lines, and one more that counts the rest."""
    found: dict[Keys, ErrorDetails] = {}
    for one in error.errors(include_url=False):
        found.setdefault(_path(one, data), one)
    outer = {path[:n] for path in found for n in range(len(path))}
    inner = [(path, one) for path, one in found.items() if path not in outer]
    schema = schema_of(model)
    lines = [_line(path, one, schema, data, places, source) for path, one in inner[:MAX_LINES]]
    if len(inner) > MAX_LINES:
        lines.append(f"{source}: and {len(inner) - MAX_LINES} more mistakes; correct these first")
    return lines


def where(path: Keys, places: dict[Keys, Place], source: str) -> str:
    """Return the place of a key, or of the nearest section around it that the user wrote."""
    around = (places[path[:n]].where for n in range(len(path), 0, -1) if path[:n] in places)
    return next(around, source)


def value_of(path: Keys, data: Any, places: dict[Keys, Place]) -> str:
    """Return what stands at a path, text in quotes and all else as the user wrote it; "" if nothing does."""
    try:
        value = lookup(path, data)
    except (KeyError, IndexError, TypeError):
        return ""
    plain = places[path].plain if path in places else None
    return shown(value) if isinstance(value, str) or not plain else bare(plain)


def _path(error: ErrorDetails, data: Any) -> Keys:
    """Return the keys in an error's location, without the names of union members that pydantic puts between them."""
    path: list[str | int] = []
    for part in error["loc"]:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int)):
            path.append(part)
            data = lookup((part,), data)
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    if error["type"].startswith("union_tag"):
        path.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _line(path: Keys, error: ErrorDetails, schema: Schema, data: Any, places: dict[Keys, Place], source: str) -> str:
    kind, allowed, place = error["type"], in_words(at(schema, path, data)), where(path, places, source)
    message = error["msg"][:1].lower() + error["msg"][1:]
    if kind in ("value_error", "assertion_error"):
        text = " ".join(str(error["ctx"]["error"]).split())
        path, place = _meant(text, path, places, place)
        text = text.removeprefix(f"{dotted(path)} ")
    elif kind == "extra_forbidden":
        text = _unknown(path, schema, data)
    elif kind in ("missing", "union_tag_not_found"):
        text = f"is required: {allowed}; add it"
    elif kind == "union_tag_invalid":
        text = f"must be one of {error['ctx']['expected_tags']}; correct it"
    elif error["loc"][-1:] == ("[key]",):
        text = f"the key must be {in_words([{'type': 'string', **error.get('ctx', {})}])}; rename it"
    else:
        told = allowed and (kind in IN_SCHEMA or kind.endswith("_type"))
        text = f"{f'must be {allowed}' if told else message}; {remedy(path, schema, data, places)}"
    value = value_of(path, data, places)
    return f"{place}: {dotted(path) or 'spec'}{f' = {value}' if path and value else ''}: {text}"


def _meant(text: str, section: Keys, places: dict[Keys, Place], place: str) -> tuple[Keys, str]:
    """Return the key that a validator's message is about, the first it names that the user wrote, and its place.

    An override that touches such a key comes first: it is what the user did last.
    """
    words = (tuple(int(part) if part.isdecimal() else part for part in word.split(".")) for word in re.findall(r"[a-z][a-z0-9_.]*\w", text))
    named = [(*section, *word) for word in words] or [section]
    written = [(path, places[p].where) for path in named for p in places if p[: len(path)] == path]
    overridden = [one for one in written if one[1].startswith("--set ")]
    # A key that is missing: its section is what the user wrote.
    missing = [(path, places[path[:-1]].where) for path in named if path[:-1] in places and len(path) > len(section) + 1]
    return next(iter(overridden or written or missing), (section, place))


def _unknown(path: Keys, schema: Schema, data: Any) -> str:
    key = str(path[-1])
    allowed = keys(at(schema, path[:-1], data))
    elsewhere = [dotted(home[:-1]) or "the top level" for home in homes(schema, key.rsplit(".", 1)[-1])]
    near = difflib.get_close_matches(key[:60].lower().replace("-", "_"), allowed, n=1)
    hint = f"did you mean {near[0]}?" if near else "remove it."
    if elsewhere:
        hint = f"it belongs in {' or '.join(elsewhere)}."
    return f"unknown key; {hint} Allowed here: {', '.join(allowed)}"
