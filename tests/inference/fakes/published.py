"""What an engine published (tests/golden/engine_args), and a model that isn't one: for engines that aren't installed.

The fakes beside this file have the names that our adapters use and refuse every other, so that an adapter that calls an engine by
a name it doesn't have fails its contract. What they answer is made up and is never a result.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "engine_args"
END_TOKEN = 2
"""The model that isn't one ends after three tokens, unless it must go on."""


def check(engine: str, key: str, names: Iterable[str]) -> None:
    """Raise TypeError for a name that a published function or class (or `options`) doesn't have."""
    golden = json.loads((GOLDEN / f"{engine}.json").read_text())
    known = golden["options"] if key == "options" else golden["signatures"][key]
    if unknown := set(names) - set(known):
        raise TypeError(f"{engine} {key} has no {', '.join(sorted(unknown))}")


def tokens(prompt: Sequence[int], count: int, ignore_eos: bool) -> Iterator[int]:
    """Yield made-up tokens that depend on all tokens before them; the end token is the last, if it comes."""
    state = sum((i + 1) * token for i, token in enumerate(prompt))
    for i in range(count):
        if i == 3 and not ignore_eos:
            yield END_TOKEN
            return
        state = (state * 31 + 7) % 1009
        yield 3 + state
