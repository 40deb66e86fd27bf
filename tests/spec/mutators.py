"""Ways to break a spec's text: single bytes, cuts, lines, values, keys, tokens. For tests that break many."""

import random
import re
from collections.abc import Callable

WORDS = r"""
null ~ true 'true' yes no off on 0 -1 1 00 010 08 1:30 0x1F 0b_ 0o7 1_000 1e3 2e-4 1.0e+400 -0.0 .inf -.INF .nan NaN 2.0 0.5
99999999999999999999 '20' "20" [] {} [[]] [1,x] {a:} {a:{b:{c:}}} - ? : & &b *a *model !!int !!binary !!python/object:os.system
!x << {<<:*model} 2024-01-01 2024-13-45 @x `x % %YAML --- ... # #x ' " "\ud800" "\0\n" "\x1b[31m" \ = , } ] >- |
auto train bench full lora a.b a:b é
"""
NASTY = ["", "- a", "? a", ": ", "a: b: c", "&b c", "!!int x", "\u2028", "\x85", "\ufeff", "\u202e", "\U0001f600", "\t", "\0", "\x7f"]
NASTY += WORDS.split()
KEYS = ["train", "max_steps", "max-steps", "Name", "<<", "1", "on", "~", "?", "a.b", "''", '"\\n"', "[a]", "{a: b}", "*model", "é", "kind"]


def flip(rng: random.Random, text: bytes) -> bytes:
    at = rng.randrange(len(text))
    return text[:at] + bytes([rng.randrange(256)]) + text[at + rng.randrange(2) :]


def cut(rng: random.Random, text: bytes) -> bytes:
    a, b = sorted(rng.choices(range(len(text) + 1), k=2))
    return rng.choice([text[:a], text[:a] + text[b:], text[a:b] + text, text[:b] + text[a:]])


def lines(rng: random.Random, text: bytes) -> bytes:
    lines = text.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    spaces = rng.choice([b" ", b"  ", b"\t", b"- ", b"    "])
    change: list[Callable[[], object]] = [
        lambda: lines.pop(at),
        lambda: lines.insert(other, lines[at]),
        lambda: lines.__setitem__(at, spaces + lines[at]),
        lambda: lines.__setitem__(at, lines[at].lstrip()),
        lambda: lines.__setitem__(slice(at, at + 1), [lines[other], lines[at]]),
    ]
    rng.choice(change)()
    return b"\n".join(lines)


def value(rng: random.Random, text: bytes) -> bytes:
    spots = [*re.finditer(rb"(?<=: )[^\n,}\]]+|(?<=- )[^\n]+", text)] or [re.compile(b"").match(text)]
    spot = rng.choice(spots)
    return text[: spot.start()] + rng.choice(NASTY).encode() + text[spot.end() :]


def key(rng: random.Random, text: bytes) -> bytes:
    spots = [*re.finditer(rb"\w+(?=:)", text)] or [re.compile(b"").match(text)]
    spot, other = rng.choice(spots), rng.choice(spots)
    return text[: spot.start()] + rng.choice([other[0], rng.choice(KEYS).encode()]) + text[spot.end() :]


def token(rng: random.Random, text: bytes) -> bytes:
    tokens = re.split(rb"(\W)", text)
    a, b = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    tokens[a], tokens[b] = tokens[b], rng.choice([tokens[a], rng.choice(NASTY).encode()])
    return b"".join(tokens)


def broken(rng: random.Random, text: bytes) -> bytes:
    """Return the text after none to four mutations."""
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        text = rng.choice([flip, cut, lines, value, value, key, token])(rng, text or b"a: b")
    return text
