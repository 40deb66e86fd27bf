"""The functions of Terraform's language that the modules use; one that isn't here is an error that names it."""

import base64
import datetime
import hashlib
import json
import re
import uuid
from collections.abc import Callable
from ipaddress import ip_network
from itertools import chain
from pathlib import Path
from typing import Any

import yaml


def _cidrsubnet(prefix: str, newbits: float, number: float) -> str:
    network = ip_network(prefix)
    size = 1 << (network.max_prefixlen - network.prefixlen - int(newbits))
    return f"{network.network_address + int(number) * size}/{network.prefixlen + int(newbits)}"


def _flatten(value: Any) -> list[Any]:
    return [*chain.from_iterable(_flatten(one) for one in value)] if isinstance(value, list) else [value]


def _one(values: list[Any]) -> Any:
    if len(values) > 1:
        raise ValueError(f"one() takes a list of at most one, and got {len(values)}")
    return values[0] if values else None


def _coalesce(*values: Any) -> Any:
    return next(value for value in values if value not in (None, ""))


def _replace(text: str, old: str, new: str) -> str:
    """A pattern between slashes is a regular expression."""
    return re.sub(old[1:-1], new, text) if len(old) > 1 and old[0] == old[-1] == "/" else text.replace(old, new)


def _merge(*maps: dict[str, Any]) -> dict[str, Any]:
    return {key: value for one in maps for key, value in one.items()}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "base64encode": lambda text: base64.b64encode(text.encode()).decode(),
    "cidrsubnet": _cidrsubnet,
    "coalesce": _coalesce,
    "concat": lambda *lists: [*chain.from_iterable(lists)],
    "distinct": lambda values: list(dict.fromkeys(values)),
    "file": lambda path: Path(path).read_text(encoding="utf-8"),
    "flatten": _flatten,
    "formatdate": lambda form, time: f"{time:%Y-%m}-01T00:00:00Z",
    "join": lambda separator, values: separator.join(values),
    "jsonencode": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "length": len,
    "merge": _merge,
    "one": _one,
    "plantimestamp": lambda: datetime.datetime.now(datetime.UTC),
    "range": lambda stop: list(range(int(stop))),
    "replace": _replace,
    "sha256": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "split": lambda separator, text: text.split(separator),
    "startswith": str.startswith,
    "substr": lambda text, start, length: text[int(start) : int(start) + int(length)],
    "title": lambda text: re.sub(r"\b[a-z]", lambda first: first[0].upper(), text),
    "tonumber": float,
    "toset": lambda values: {value: value for value in sorted(values)},
    "trimsuffix": str.removesuffix,
    "uuidv5": lambda namespace, name: str(uuid.uuid5({"url": uuid.NAMESPACE_URL}[namespace], name)),
    "yamlencode": lambda value: yaml.safe_dump(value),
}
"""formatdate knows the one form that the modules use: the first of the month. A set is a mapping of each value to itself."""
