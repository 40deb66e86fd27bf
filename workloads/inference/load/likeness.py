"""The quick way through a stream: its events are alike but for their text, so the text alone is read as JSON, all at once.

From the first event with a text on, the stream is cut at what all of them begin and end with, which leaves sizes and texts. Every
size is checked, and the few other events (role, end, usage) are read whole. A stream of any other form, and anything that is wrong
with one, goes the long way through parse.py, at about four times the cost.
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
END, DONE = b"\n\n\r\n", b"data: [DONE]\n\n"


def read_alike(raw: bytes, head: Head, exchange: Exchange) -> Tally | None:
    """Return what a whole stream says, or None when it isn't of the common form."""
    found = TEXT.search(raw, head.size)
    if found is None or not head.chunked or not raw.endswith(b"\r\n0\r\n\r\n"):
        return None
    before_at, after_at = raw.rfind(b"\r\n", 0, found.start()) + 2, raw.find(END, found.end())
    start = raw.rfind(b"\r\n", head.size - 2, before_at - 2) + 2  # where the chunk's size stands
    before, after = raw[before_at : found.start(1)], raw[found.end(1) : after_at + len(END)]
    end = raw.rfind(after) + len(after)
    if after_at < 0 or end <= start or not before.startswith(b"data: {"):
        return None
    # Cut behind each text, then between its size and it.
    border = b"\r\n" + before
    pieces = [piece.partition(border) for piece in raw[start:end].split(after)[:-1]]
    written, _, literals = zip(*pieces, strict=True)
    lengths, fixed = list(map(len, literals)), len(before) + len(after) - 2
    # A chunk is its size, a line's end, itself and a line's end; the last is no part of its event.
    ends = accumulate(map(add, map(len, written), map(add, lengths, repeat(fixed + 4))), initial=start)
    try:
        # Each chunk has the size that it tells, so nothing else lies between them; few sizes differ.
        if any(int(size, 16) != length + fixed for size, length in set(zip(written, lengths, strict=True))) or b'""' in literals:
            return None
        event = before + literals[0] + after[:-2]
        return _assemble(raw, head, (start, end), event, literals, list(ends)[1:], exchange)
    except (TypeError, ValueError, RecursionError):
        return None


def _assemble(raw: bytes, head: Head, edges: tuple[int, int], event: bytes, literals: tuple[bytes, ...], ends: list[int],
              exchange: Exchange) -> Tally | None:  # fmt: skip
    """Put the events before, the texts and the events after together; None when a text's event says more than its text."""
    first, last = list(chunks(raw[: edges[0]], head.size)), list(chunks(raw, edges[1]))[:-1]
    others = [payload for _, payload in first + last]
    if not all(p[:6] == b"data: " and p.find(b"\n") == len(p) - 2 for p in others):
        return None
    whole = [p[6:-2] for p in [event, *others] if p != DONE]
    said = json.loads(b"[" + b",".join([*literals, *whole]) + b"]")
    texts, said = said[: -len(whole)], said[-len(whole) :]
    if len(texts) != len(literals):
        return None
    probe = Tally()
    probe.take(said[0], 0)
    if probe.said() != (texts[:1], [None], [None], None, None):
        return None
    ends[:0], at = [at + len(payload) + 2 for at, payload in first], len(first)
    stamps = _stamps(ends + [at + len(payload) + 2 for at, payload in last], exchange)
    said.reverse()
    said.pop()
    tally = Tally()
    for i, payload in enumerate(others):
        if i == at:
            tally.add_alike("".join(texts), stamps[at : at + len(texts)])
        tally.take(None if payload == DONE else said.pop(), stamps[i if i < at else i + len(texts)])
    return tally if last else None


def _stamps(ends: list[int], exchange: Exchange) -> list[int]:
    """Return when the read came that brought each chunk's last byte but for the line's end behind it."""
    stamps, read_ends = exchange.log[0::2], list(accumulate(map(len, exchange.log[1::2]), initial=2))[1:]
    return list(map(stamps.__getitem__, map(bisect_left, repeat(read_ends), ends)))
