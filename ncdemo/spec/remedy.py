"""What to write instead of a value that a spec doesn't allow: the likely slip is guessed from the value itself.

remedy(("train", "learning_rate"), schema, data, places)  # "YAML reads this as text: write 0.0002"
"""

import math
import re
from typing import Any

from ncdemo.spec.allowed import Schema, at, takes
from ncdemo.spec.read import Place
from ncdemo.spec.show import Keys, bare, shown


def lookup(path: Keys, data: Any) -> Any:
    for part in path:
        data = data[part]
    return data


def remedy(path: Keys, schema: Schema, data: Any, places: dict[Keys, Place]) -> str:
    """Say what to write instead, as exactly as the value lets us guess."""
    wanted = at(schema, path, data)
    types = {s.get("type") for s in wanted}
    value = lookup(path, data)
    plain = places[path].plain if path in places else None
    remove = "remove the entry" if isinstance(path[-1], int) else f"remove the key to take the default{_default(path, schema, data)}"
    if value is None:
        return f"null is not allowed here: {remove}"
    if isinstance(value, float) and not math.isfinite(value):
        return "infinity and NaN are not allowed"
    if isinstance(value, str) and types & {"integer", "number"} and (number := _number(value, whole="number" not in types)):
        return f"YAML reads this as text: write {number}" if plain else f"remove the quotes: write {number}"
    if value in ("true", "false") and "boolean" in types:
        return "remove the quotes"
    if isinstance(value, float) and "integer" in types and value.is_integer():
        return f"remove the fraction: write {int(value)}"
    if plain and not isinstance(value, str) and any(takes(s, plain) for s in wanted):
        return f"YAML reads this as {'true or false' if isinstance(value, bool) else 'a number'}: quote it if it is text"
    if any(takes(one, value) for s in wanted if "items" in s for one in at(s, (0,), [value])):
        return f"write [{bare(plain) if plain else shown(value)}] for a list of one"
    return f"correct it, or {remove}"


def _default(path: Keys, schema: Schema, data: Any) -> str:
    parents = at(schema, path[:-1], data)
    default: Any = next((s["properties"][path[-1]].get("default", {}) for s in parents if path[-1] in s.get("properties", {})), {})
    return "" if isinstance(default, dict | list) else f" ({shown(default)})"


def _number(text: str, whole: bool) -> str | None:
    """Return a number that people write and YAML 1.1 reads as text (2e-4, 1e3, 08), as YAML reads it; None if it isn't one."""
    if not re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", text.strip(), re.ASCII) or math.isinf(number := float(text)):
        return None
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return None if whole else shown(number)
