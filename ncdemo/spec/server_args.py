"""What was appended to an engine's server's command, argument by argument, and what each changes.

    split(["--quantization=fp8", "--enforce-eager"])       # [("--quantization", "fp8"), ("--enforce-eager", None)]

Each engine's own table (workloads/inference/frameworks/) says what its arguments change; here are the words for it.
"""

import re
from collections.abc import Iterable
from typing import Literal

from ncdemo.spec.record import Record

Effect = Literal[
    "weights", "cache format", "arithmetic", "speculation", "context", "sampling", "prompt", "prefix cache", "GPUs", "speed", "unknown"
]
"""All but the last two change the answer or the work: between two cells they must be equal."""
ONLY_NAMED: tuple[Effect, ...] = ("speed", "unknown")
NUMBER = re.compile(r"-\d*\.?\d+")


class ServerArg(Record):
    """One argument with its values, as it was given; secrets are left out."""

    name: str
    value: str | None = None
    """None: a switch."""
    changes: Effect = "unknown"
    """What it changes, by the engine's own table: the weights or their number format, the number format of the key-value cache, how
    numbers are multiplied and summed, speculative decoding, positions and lengths, sampling, how a prompt becomes tokens, whether
    earlier work is used again, how many GPUs work, or nothing but speed."""

    @property
    def shown(self) -> str:
        return self.name if self.value is None else f"{self.name} {self.value}"


def split(words: Iterable[str]) -> list[tuple[str, str | None]]:
    """Return a command's options with their values; several values of one option are joined."""
    found: list[tuple[str, str | None]] = []
    for word in words:
        if word.startswith("-") and not NUMBER.fullmatch(word):
            name, equals, value = word.partition("=")
            found.append((name, value if equals else None))
        elif found:
            name, value_before = found.pop()
            found.append((name, word if value_before is None else f"{value_before} {word}"))
        else:
            found.append((word, None))
    return found


def plain(name: str) -> str:
    """Return an option's one name, as engines take - for _ and, of a switch, a `no-` before it."""
    return name.lstrip("-").replace("_", "-").removeprefix("no-")
