"""Values and keys as they appear in a message: always one line, whatever the user wrote.

shown("two\\nlines")  # 'two\\nlines', escaped and in quotes
"""

import re
from typing import Any

Keys = tuple[str | int, ...]


def shown(value: Any, limit: int = 60) -> str:
    """Return a value in one short, printable line, numbers as YAML reads them."""
    text = {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)
    if isinstance(value, float):
        text = re.sub(r"^(-?\d+)e", r"\1.0e", text)  # YAML 1.1 reads an exponent without a dot as text
    return text if len(text) <= limit else text[: limit - 3] + "..."


def bare(text: str, limit: int = 60) -> str:
    """Return text without quotes, unless it would break the line."""
    return text if text.isprintable() and len(text) <= limit else shown(text, limit)


def dotted(path: Keys) -> str:
    """Return a path as the user writes it in an override."""
    return ".".join(bare(str(part)) for part in path)
