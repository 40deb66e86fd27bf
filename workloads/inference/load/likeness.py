"""The quick way through a stream: its events are alike but for their text, so the text alone is read as JSON, all at once.

From the first event with a text on, the stream is cut at what all of them begin and end with, which leaves sizes and texts. Every
size is checked, and the few other chunks (role, end, usage) are read whole. A stream
of any other form, and anything that is wrong with one, goes the long way through parse.py. Reading costs half of it this way.
"""

import json
import re
from bisect import bisect_left
from itertools import accumulate, repeat
from operator import add

from workloads.inference.load.connection import Exchange
from workloads.inference.load.response import Head, chunks
from workloads.inference.load.tally import Tally

TEXT = re.compile(rb'"(?:content|text)": ?("[^"\\]+")')
END = b"\n\n\r\n"


def read_alike(raw: bytes, head: Head, exchange: Exchange) -> Tally | None:
    """Return what a whole stream says, or None when it isn't of the common form."""
    if not head.chunked or not raw.endswith(b"\r\n0\r\n\r\n"):
        return None
    found = TEXT.search(raw, head.size)
    if found is None:
        return None
    before_at, after_at = raw.rfind(b"\r\n", 0, found.start()) + 2, raw.find(END, found.end())
    start = raw.rfind(b"\r\n", head.size - 2, before_at - 2) + 2  # where the chunk's size stands
    before, after = raw[before_at : found.start(1)], raw[found.end(1) : after_at + len(END)]
    end = raw.rfind(after) + len(after)
    if after_at < 0 or end <= start or not before.startswith(b"data: {"):
        return None
    # Cut behind each text, then between its size and it; `before` and `after` are gone, the rest is one text each or isn't ours.
    border = b"\r\n" + before
    pieces = [piece.partition(border) for piece in raw[start:end].split(after)[:-1]]
    written, _, literals = zip(*pieces, strict=True)
    try:
        sizes = list(map(int, written, repeat(16)))
        # As many as there are chunks, of the sizes that they tell: so nothing else lies between them.
        if sizes != list(map(add, map(len, literals), repeat(len(before) + len(after) - 2))):
            return None
        texts = json.loads(b"[" + b",".join(literals) + b"]")
        if len(texts) != len(literals) or set(map(type, texts)) != {str} or "" in texts:
            return None
        # A chunk is its size, a line's end, itself and a line's end; the last is no part of its event.
        whole = map(add, map(len, written), map(add, sizes, repeat(4)))
        stamps = _stamps(list(accumulate(whole, initial=start))[1:], exchange)
        return _assemble(raw, head, start, end, before + literals[0] + after[:-2], texts, stamps, exchange)
    except ValueError:
        return None


def _stamps(ends: list[int], exchange: Exchange) -> list[int]:
    """Return when the read came that brought each chunk's last byte but for the line's end behind it."""
    stamps, read_ends = exchange.log[0::2], list(accumulate(map(len, exchange.log[1::2]), initial=2))[1:]
    return list(map(stamps.__getitem__, map(bisect_left, repeat(read_ends), ends)))


def _assemble(raw: bytes, head: Head, start: int, end: int, event: bytes, texts: list[str], stamps: list[int],
              exchange: Exchange) -> Tally | None:  # fmt: skip
    """Put the chunks before, the texts and the chunks after together; None when a text's event says more than its text."""
    first = [(at + len(p) + 2, p) for at, p in chunks(raw[:start], head.size)]
    last = [(at + len(p) + 2, p) for at, p in chunks(raw, end)][:-1]
    lines = [event, *(payload for _, payload in first + last)]
    if not all(line.startswith(b"data: ") and line.find(b"\n") == len(line) - 2 for line in lines):
        return None
    objects = [line[6:-2] for line in lines if line != b"data: [DONE]\n\n"]
    said = dict(zip(objects, json.loads(b"[" + b",".join(objects) + b"]"), strict=True))
    probe = Tally()
    probe.take(said[event[6:-2]], 0)
    if probe.said() != (texts[:1], [None], [None], None, None):
        return None
    tally = Tally()
    others = _stamps([at for at, _ in first + last], exchange)
    for i, (_, payload) in enumerate(first + last):
        if i == len(first):
            tally.add_alike(texts, stamps)
        tally.take(said.get(payload[6:-2]), others[i])
    if not last:
        tally.add_alike(texts, stamps)
    return tally
