"""What arrived, read after the window: stamps and bytes of one exchange to an answer's facts.

An event's stamp is that of the read that brought its last byte. This is the long way, for any form of a stream and anything that
is wrong with it; likeness.py is the quick one for the common form.
"""

import re
from itertools import accumulate

from workloads.inference.frameworks.base import Answer
from workloads.inference.load import failures
from workloads.inference.load.connection import Exchange
from workloads.inference.load.event import parsed
from workloads.inference.load.likeness import read_alike
from workloads.inference.load.response import Head, chunks
from workloads.inference.load.tally import Tally

BORDER = re.compile(rb"\r?\n\r?\n|\r\r")


def answer(exchange: Exchange) -> tuple[Answer, int]:
    """Return an exchange's answer and how many events it had. Whatever a server sent, that is its request's own failure alone."""
    try:
        return _read_all(exchange)
    except Exception as error:  # not foreseen: the other requests' answers must not be lost with it
        why = f"can't be read: {type(error).__name__}: {error}"
        return Answer(exchange.index, exchange.scheduled_ns, exchange.sent_ns, failure=failures.MALFORMED, error=_clean(why)), 0


def _read_all(exchange: Exchange) -> tuple[Answer, int]:
    result = Answer(exchange.index, exchange.scheduled_ns, exchange.sent_ns)
    raw = b"".join(exchange.log[1::2])
    head = Head.of(raw)
    result.http_status = head.status if head else None
    tally = Tally()
    if head is None:
        _fail(result, failures.CLOSED_EARLY, f"the server closed the connection after {len(raw)} bytes, before a whole response head")
    elif head.status != 200:
        _fail(result, failures.of_status(head.status), f"HTTP {head.status}: {_start(raw, head)}")
    elif (quick := read_alike(raw, head, exchange)) is not None:
        tally = quick
        _judge(tally, exchange, result)
    else:
        _read(raw, head, exchange, tally, result)
    if exchange.failure is not None:  # what our own client saw comes first: a time-out explains a missing end
        _fail(result, exchange.failure, exchange.detail + (f"; {result.error}" if result.http_status not in (None, 200) else ""))
    _take(tally, result)
    if head and result.chunk_tokens_from in ("one_each", "unknown") and len(result.chunk_ns) > 1:
        result.first_text = _first_text(raw, head)
    return result, tally.events


def _read(raw: bytes, head: Head, exchange: Exchange, tally: Tally, result: Answer) -> None:
    """Read a stream event by event; say what is wrong with it."""
    try:
        ends, events = _events(raw, head)
        for stamp, event in zip(_stamped(ends, exchange), events, strict=True):
            tally.take(parsed(event), stamp)
    except (ValueError, RecursionError) as error:
        _fail(result, failures.MALFORMED, f"event {tally.events + 1} of the stream: {error}")
        return
    _judge(tally, exchange, result)


def _first_text(raw: bytes, head: Head) -> str | None:
    """Return what the first chunk with a text says: its tokens must be counted from it."""
    tally = Tally()
    for event in _events(raw, head)[1]:
        tally.take(parsed(event), 0)
        if text := "".join(tally.texts):
            return _clean(text)
    return None


def _judge(tally: Tally, exchange: Exchange, result: Answer) -> None:
    """Say what a stream whose events are all good still lacks."""
    if tally.error is not None:
        _fail(result, failures.ERROR_EVENT, f"the stream holds an error: {tally.error}")
    elif not tally.done and tally.finish_reason is None:
        how = "the server closed the connection" if exchange.closed else "the stream ended"
        _fail(result, failures.TRUNCATED, f"{how} after {len(tally.stamps)} chunks with tokens, without finish_reason and [DONE]")
    elif not tally.stamps:
        _fail(result, failures.NO_TOKEN, "the stream ended without a token")
    elif tally.usage and tally.usage.completion_tokens == 0:
        _fail(result, failures.NO_TOKEN, f"the server counted 0 output tokens in {len(tally.stamps)} chunks with a text")


def _fail(result: Answer, failure: str, error: str) -> None:
    result.failure, result.error = failure, _clean(error)


def _clean(text: str) -> str:
    """Return a text that can be written: JSON may name halves of characters. Two that belong together become one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _start(raw: bytes, head: Head) -> str:
    """Return the first words of a body that isn't a stream, as they are where its chunks are broken."""
    try:
        body = b"".join(payload for _, payload in _body(raw, head))
    except ValueError:
        body = raw[head.size :]
    return body[:200].decode("utf-8", "replace")


def _body(raw: bytes, head: Head) -> list[tuple[int, bytes]]:
    """Return (position, payload) of the body's chunks; ValueError for one whose size isn't a number."""
    return list(chunks(raw, head.size)) if head.chunked else [(head.size, raw[head.size :])]


def _events(raw: bytes, head: Head) -> tuple[list[int], list[bytes]]:
    """Return of each complete event the position of its end in raw, and its data."""
    ends, events, rest = [], [], b""
    for start, payload in _body(raw, head):
        # The common case: one chunk is one event of one line.
        if not rest and payload[:6] == b"data: " and payload.find(b"\n") == len(payload) - 2 and payload[-2:] == b"\n\n":
            ends.append(start + len(payload))
            events.append(payload[6:-2])
            continue
        text, position = rest + payload, 0
        for border in BORDER.finditer(text):
            data = _data(text[position : border.start()])
            if data is not None:
                ends.append(start + border.end() - len(rest))
                events.append(data)
            position = border.end()
        rest = text[position:]
    return ends, events


def _data(event: bytes) -> bytes | None:
    """Return the data of an event's lines; None for a comment, which servers send to keep a connection alive."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def _stamped(ends: list[int], exchange: Exchange) -> list[int]:
    """Return when the read came that brought each end."""
    log = exchange.log
    if len(log) == 2:
        return [log[0]] * len(ends)
    stamps, read_ends, i = [], list(accumulate(map(len, log[1::2]))), 0
    for end in ends:
        while read_ends[i] < end:
            i += 1
        stamps.append(log[2 * i])
    return stamps


def _take(tally: Tally, result: Answer) -> None:
    """Put what the events said into the answer, and how many tokens each chunk had, as well as that can be known."""
    chunks_with_tokens = len(tally.stamps)
    result.chunk_ns = tally.stamps
    result.text = _clean("".join(tally.texts)) if result.http_status == 200 else None
    result.finish_reason = tally.finish_reason
    if tally.usage is not None:
        result.output_tokens = tally.usage.completion_tokens
        result.prompt_tokens = tally.usage.prompt_tokens
    result.chunk_tokens, result.chunk_tokens_from = [1] * chunks_with_tokens, "one_each"
    if chunks_with_tokens and all(tally.ids):
        result.chunk_tokens, result.chunk_tokens_from = [len(ids) for ids in tally.ids if ids], "token_ids"
        result.token_ids = [i for ids in tally.ids if ids for i in ids]
    elif chunks_with_tokens and all(tally.running):
        counts = [count for count in tally.running if count]
        steps = [b - a for a, b in zip([0, *counts], counts, strict=False)]
        if min(steps) >= 0 and counts[-1] == result.output_tokens:
            result.chunk_tokens, result.chunk_tokens_from = steps, "usage"
    elif result.output_tokens is not None:
        result.chunk_tokens_from = "usage" if result.output_tokens == chunks_with_tokens else "unknown"
