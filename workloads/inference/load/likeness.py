"""The quick way through a stream: its events are alike but for their text, so the text alone is read as JSON, all at once.

From the first event with a text on, the stream is cut at what all of them begin and end with, which leaves sizes and texts. Every
size and every beginning is checked, and the few other events (role, end, usage) are read whole. A stream of any other form, and
anything that is wrong with one, goes the long way through parse.py, at several times the cost.
"""

import re
from bisect import bisect_left
from functools import lru_cache
from itertools import accumulate, repeat
from operator import itemgetter

import msgspec

from workloads.inference.load.connection import Exchange
from workloads.inference.load.event import Event
from workloads.inference.load.response import Head, chunks
from workloads.inference.load.tally import Tally

TEXT = re.compile(rb'"(?:content|text)": ?"([^"\\]+)"')
END, DONE = b"\n\n\r\n", b"data: [DONE]\n\n"
_texts, _events = msgspec.json.Decoder(list[str]), msgspec.json.Decoder(list[Event])


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
    pieces = raw[start:end].split(after)[:-1]
    texts = _texts_of(pieces, before, len(after))
    if texts is None or b"" in texts:
        return None
    # A chunk's last line's end is no part of its event.
    ends = list(accumulate(map(len(after).__add__, map(len, pieces)), initial=start - 2))[1:]
    try:
        return _assemble(raw, head, (start, end), before + texts[0] + after[:-2], texts, ends, exchange)
    except (ValueError, RecursionError):
        return None


def _texts_of(pieces: list[bytes], before: bytes, after: int) -> list[bytes] | None:
    """Return what is left of each piece behind its chunk's size and `before`; None when one begins otherwise.

    A piece's length says which size must stand there, so nothing else lies between two events. `after`: bytes cut off behind it.
    """
    lengths = list(map(len, pieces))
    for form in (b"%x", b"%X"):
        begins = {length: _size(length + after - 4, form) + before for length in set(lengths)}
        if all(map(bytes.startswith, pieces, map(begins.__getitem__, lengths))):
            skips = set(map(len, begins.values()))
            if len(skips) == 1:
                return list(map(itemgetter(slice(skips.pop(), None)), pieces))
            return [piece[len(begins[length]) :] for piece, length in zip(pieces, lengths, strict=True)]
    return None


@lru_cache(1 << 12)
def _size(total: int, form: bytes) -> bytes:
    """Return the size of a chunk, and a line's end, that has `total` bytes: its digits with them, the lines' ends without."""
    return next((w for digits in range(1, 9) if len(w := form % max(0, total - digits)) == digits), b"?") + b"\r\n"


def _assemble(raw: bytes, head: Head, edges: tuple[int, int], event: bytes, texts: list[bytes], ends: list[int],
              exchange: Exchange) -> Tally | None:  # fmt: skip
    """Put the events before, the texts and the events after together; None when a text's event says more than its text."""
    first, last = list(chunks(raw[: edges[0]], head.size)), list(chunks(raw, edges[1]))[:-1]
    others = [payload for _, payload in first + last]
    if not last or not all(p[:6] == b"data: " and p.find(b"\n") == len(p) - 2 for p in others):
        return None
    said = _texts.decode(b'["' + b'","'.join(texts) + b'"]')
    if len(said) != len(texts):
        return None
    like, *whole = _events.decode(b"[" + b",".join([p[6:-2] for p in [event, *others] if p != DONE]) + b"]")
    probe = Tally()
    probe.take(like, 0)
    if probe.said() != (said[:1], [None], [None], None, None):
        return None
    ends[:0] = [at + len(payload) for at, payload in first]
    stamps = _stamps(ends + [at + len(payload) for at, payload in last], exchange)
    tally, events = Tally(), iter(whole)
    for i, payload in enumerate(others):
        if i == len(first):
            tally.add_alike("".join(said), stamps[i : i + len(said)])
        tally.take(None if payload == DONE else next(events), stamps[i if i < len(first) else i + len(said)])
    return tally


def _stamps(ends: list[int], exchange: Exchange) -> list[int]:
    """Return when the read came that brought each event's last byte; `ends` are positions behind them."""
    stamps, read_ends = exchange.log[0::2], list(accumulate(map(len, exchange.log[1::2])))
    return list(map(stamps.__getitem__, map(bisect_left, repeat(read_ends), ends)))
