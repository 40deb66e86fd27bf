"""What arrived, read after the window: stamps and bytes of one exchange to an answer's facts.

An event's stamp is that of the read that brought its last byte. Most events of a stream are alike but for their text, so that is
used: those that begin and end as the first token's event does have only their text read as JSON, all of them at once.
"""

import json
import re
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from workloads.inference.frameworks.base import Answer
from workloads.inference.load import failures
from workloads.inference.load.connection import Exchange
from workloads.inference.load.response import Head, chunks

BORDER = re.compile(rb"\r?\n\r?\n|\r\r")
TEXT = re.compile(rb'"(?:content|text)": ?("[^"\\]+")')


@dataclass
class Tally:
    """What the events of a stream said so far."""

    stamps: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ids: list[list[int] | None] = field(default_factory=list)
    running: list[int | None] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    done: bool = False
    error: str | None = None
    events: int = 0


def answer(exchange: Exchange) -> tuple[Answer, int]:
    """Return an exchange's answer and how many events it had."""
    result = Answer(exchange.index, exchange.scheduled_ns, exchange.sent_ns)
    raw = b"".join(exchange.log[1::2])
    head = Head.of(raw)
    result.http_status = head.status if head else None
    tally = Tally()
    if head is None:
        _fail(result, failures.CLOSED_EARLY, f"the server closed the connection after {len(raw)} bytes, before a whole response head")
    elif head.status != 200:
        start = b"".join(p for _, p in _body(raw, head))[:200].decode("utf-8", "replace")
        _fail(result, failures.of_status(head.status), f"HTTP {head.status}: {start}")
    else:
        _read(raw, head, exchange, tally, result)
    if exchange.failure is not None:  # what our own client saw comes first: a time-out explains a missing end
        _fail(result, exchange.failure, exchange.detail + (f"; {result.error}" if result.http_status not in (None, 200) else ""))
    _take(tally, result)
    return result, tally.events


def _read(raw: bytes, head: Head, exchange: Exchange, tally: Tally, result: Answer) -> None:
    """Read a stream; say what is wrong with it."""
    try:
        where, events = _events(raw, head)
        if not _alike(events, _stamped(where, exchange), tally):
            for stamp, event in zip(_stamped(where, exchange), events, strict=True):
                _event(event, stamp, tally)
    except ValueError as error:
        _fail(result, failures.MALFORMED, f"event {tally.events + 1} of the stream: {error}")
        return
    if tally.error is not None:
        _fail(result, failures.ERROR_EVENT, f"the stream holds an error: {tally.error}")
    elif not tally.done and tally.finish_reason is None:
        how = "the server closed the connection" if exchange.closed else "the stream ended"
        _fail(result, failures.TRUNCATED, f"{how} after {len(tally.stamps)} chunks with tokens, without finish_reason and [DONE]")
    elif not tally.stamps:
        _fail(result, failures.NO_TOKEN, "the stream ended without a token")


def _fail(result: Answer, failure: str, error: str) -> None:
    result.failure, result.error = failure, error


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


def _alike(events: list[bytes], stamps: list[int], tally: Tally) -> bool:
    """Read the stream by the likeness of its events; return False, with nothing done, where they aren't."""
    first = next((i for i, event in enumerate(events) if TEXT.search(event)), None)
    if first is None or first > 1:
        return False
    found = TEXT.search(events[first])
    assert found
    before, after = events[first][: found.start(1)], events[first][found.end(1) :]
    a, b, last = len(before), -len(after), first
    literals = []
    for event in events[first:]:
        if not (event.startswith(before) and event.endswith(after)):
            break
        literals.append(event[a:b])
        last += 1
    try:
        texts = json.loads(b"[" + b",".join(literals) + b"]")
    except ValueError:
        return False
    if len(texts) != len(literals) or not all(type(text) is str and text for text in texts):
        return False
    probe = Tally()
    _event(events[first], 0, probe)
    if probe.texts != texts[:1] or probe.ids != [None] or probe.running != [None] or probe.finish_reason:
        return False
    for i in range(first):
        _event(events[i], stamps[i], tally)
    tally.texts += texts
    tally.stamps += stamps[first:last]
    tally.ids += [None] * len(texts)
    tally.running += [None] * len(texts)
    tally.events += len(texts)
    for i in range(last, len(events)):
        _event(events[i], stamps[i], tally)
    return True


def _event(event: bytes, stamp: int, tally: Tally) -> None:
    """Take one event; ValueError when it isn't a JSON object of the expected form."""
    if event == b"[DONE]":
        tally.done = True
        tally.events += 1
        return
    try:
        said = json.loads(event)
    except ValueError as error:
        raise ValueError(f"not JSON ({error}): {event[:120].decode('utf-8', 'replace')}") from None
    if not isinstance(said, dict):
        raise ValueError(f"not an object: {event[:120].decode('utf-8', 'replace')}")
    tally.events += 1
    if said.get("error"):
        tally.error = tally.error or json.dumps(said["error"])[:200]
        return
    if said.get("usage"):
        tally.usage = said["usage"]
    for choice in said.get("choices") or ():
        text, ids = _said(choice), choice.get("token_ids")
        if text or ids:
            tally.stamps.append(stamp)
            tally.texts.append(text)
            tally.ids.append(ids)
            tally.running.append((said.get("usage") or {}).get("completion_tokens"))
        tally.finish_reason = choice.get("finish_reason") or tally.finish_reason


def _said(choice: dict[str, Any]) -> str:
    """Return the text that a choice carries: content, reasoning, or a tool call."""
    if "text" in choice:
        return choice["text"] or ""
    delta = choice.get("delta") or {}
    calls = "".join((c.get("function") or {}).get(part) or "" for c in delta.get("tool_calls") or () for part in ("name", "arguments"))
    return (delta.get("reasoning_content") or delta.get("reasoning") or "") + (delta.get("content") or "") + calls


def _take(tally: Tally, result: Answer) -> None:
    """Put what the events said into the answer, and how many tokens each chunk had, as well as that can be known."""
    chunks_with_tokens = len(tally.stamps)
    result.chunk_ns = tally.stamps
    result.text = "".join(tally.texts) if result.http_status == 200 else None
    result.finish_reason = tally.finish_reason
    if tally.usage is not None:
        result.output_tokens = tally.usage.get("completion_tokens")
        result.prompt_tokens = tally.usage.get("prompt_tokens")
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
