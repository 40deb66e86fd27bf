"""Bytes to facts: however a response is cut into reads, and whatever form of it a server prefers."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.inference.frameworks.base import Answer
from workloads.inference.load import failures
from workloads.inference.load.connection import Exchange
from workloads.inference.load.likeness import read_alike
from workloads.inference.load.parse import answer
from workloads.inference.load.response import Head, chunks, ends_chunked

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EACH = {"id": "x", "created": 1, "model": "m"}


def event(said: Any, newline: bytes = b"\n") -> bytes:
    return b"data: " + (said if isinstance(said, bytes) else json.dumps(said).encode()) + newline * 2


def chat(text: str | None = None, finish: str | None = None, **delta: Any) -> dict:
    return EACH | {"choices": [{"index": 0, "delta": ({} if text is None else {"content": text}) | delta, "finish_reason": finish}]}


def response(events: list[bytes], end: bytes = b"0\r\n\r\n") -> bytes:
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in events) + end


def read(raw: bytes, cuts: tuple[int, ...] = (), closed: bool = False) -> tuple[Answer, int]:
    """Return the answer of a response that came in pieces; the k-th piece at 100 k."""
    exchange = Exchange(0, 1, 2)
    exchange.closed = closed
    edges = [0, *sorted({c for c in cuts if 0 < c < len(raw)}), len(raw)]
    for k, (a, b) in enumerate(pairwise(edges), 1):
        exchange.log += [100 * k, raw[a:b]]
    return answer(exchange)


TOKENS = [chat(t) for t in ["Hel", "lo", ' "w"', "\n\n", "é\U0001f600", "0\r\n\r\n", "[DONE]"]]
FULL = [event(chat("", role="assistant")), *map(event, TOKENS), event(chat(finish="stop")),
        event(EACH | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}), event(b"[DONE]")]  # fmt: skip
TEXT = 'Hello "w"\n\né\U0001f6000\r\n\r\n[DONE]'


@given(st.lists(st.integers(1, len(response(FULL)) - 1), max_size=40))
def test_any_cut_reads_alike(cuts: list[int]) -> None:
    raw = response(FULL)
    got, events = read(raw, tuple(cuts))
    assert (got.failure, got.text, got.output_tokens, got.prompt_tokens, got.finish_reason, events) == (None, TEXT, 7, 3, "stop", 11)
    # Each token's stamp is that of the read which brought the last byte of its event.
    ends = [start + len(payload) for start, payload in chunks(raw, len(HEAD))][1:8]
    assert got.chunk_ns == [100 * (1 + sum(c < end for c in sorted(set(cuts)))) for end in ends]


@given(st.lists(st.integers(1, len(response(FULL)) - 1), max_size=40))
def test_only_the_last_read_ends_it(cuts: list[int]) -> None:
    raw, log, found = response(FULL), [], []
    edges = [0, *sorted(set(cuts)), len(raw)]
    for a, b in pairwise(edges):
        log += [0, raw[a:b]]
        found.append(Head.of(b"".join(log[1::2])) is not None and ends_chunked(raw[a:b], log))
    assert found == [False] * (len(found) - 1) + [True]


@pytest.mark.parametrize("join", [1, 3, 99])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_may_share_a_chunk_or_lie_across_two(newline: bytes, join: int) -> None:
    body = b"".join(event(e, newline) for e in TOKENS) + b": ping" + newline * 2 + event(chat(finish="stop"), newline) + event(b"[DONE]")
    size = len(body) // join + 1
    got, _ = read(response([body[i : i + size] for i in range(0, len(body), size)]))
    assert (got.failure, got.text, len(got.chunk_ns), got.chunk_tokens_from) == (None, TEXT, 7, "one_each")


def test_a_body_that_ends_with_the_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    assert Head.of(head) == Head(200, len(head), None, chunked=False, keeps=False)
    assert read(head + b"".join(FULL), closed=True)[0].text == TEXT
    assert read(head + b"".join(FULL[:4]), closed=True)[0].failure == failures.TRUNCATED


def test_reasoning_and_tool_calls_are_tokens() -> None:
    said = [chat(reasoning_content="think"), chat(reasoning=" more"), chat("so"), chat(tool_calls=[{"function": {"name": "f", "arguments": None}}]),
            chat(tool_calls=[{"function": {"arguments": "{}"}}]), chat(finish="tool_calls")]  # fmt: skip
    got, _ = read(response([*map(event, said), event(b"[DONE]")]))
    assert (got.text, len(got.chunk_ns), got.finish_reason) == ("think moresof{}", 5, "tool_calls")


def test_a_running_usage_counts_each_chunk() -> None:
    said = [chat(t) | {"usage": {"prompt_tokens": 3, "completion_tokens": n}} for t, n in [("a", 1), ("bcd", 4), ("ef", 6)]]
    got, _ = read(response([*map(event, said), event(chat(finish="stop")), event(b"[DONE]")]))
    assert (got.chunk_tokens, got.chunk_tokens_from, got.output_tokens) == ([1, 3, 2], "usage", 6)


def test_a_finish_reason_with_the_last_token_is_no_less_a_token() -> None:
    got, _ = read(response([event(chat("a")), event(chat("b")), event(chat("c", finish="length")), event(b"[DONE]")]))
    assert (got.text, len(got.chunk_ns), got.finish_reason) == ("abc", 3, "length")


@pytest.mark.parametrize(
    "bad",
    [
        b'{"id": ',
        b"[1]",
        b"nothing",
        b'"text"',
        FULL[2][6:-2].replace(b'"lo"', b'"lo","content":'),
        FULL[2][6:-2].replace(b'"lo"', b'"l","o"'),
    ],
)
def test_one_event_that_is_no_json_is_enough(bad: bytes) -> None:
    got, _ = read(response([*FULL[:3], event(bad), *FULL[3:]]))
    assert got.failure == failures.MALFORMED
    assert "event 4" in str(got.error)


def test_a_first_event_that_is_broken() -> None:
    assert read(response([b"data: {\n\n"]))[0].error.startswith("event 1 of the stream: not JSON")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("raw", "failure", "says"),
    [
        (b"", failures.CLOSED_EARLY, "after 0 bytes"),
        (HEAD[:30], failures.CLOSED_EARLY, "after 30 bytes"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", failures.HTTP_OTHER, "HTTP 0"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", failures.HTTP_OTHER, "HTTP 302"),
        (b"HTTP/1.1 429 Slow\r\nContent-Length: 4\r\n\r\nwait", failures.HTTP_429, "HTTP 429: wait"),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n", failures.HTTP_5XX, "HTTP 503: busy"),
        (response(FULL[:3], end=b""), failures.TRUNCATED, "after 2 chunks with tokens"),
        (response(FULL[:3])[:-20], failures.TRUNCATED, "after 1 chunks with tokens"),
        (response([event({"error": {"message": "out of memory"}})]), failures.ERROR_EVENT, "out of memory"),
        (response([event(chat(finish="stop")), event(b"[DONE]")]), failures.NO_TOKEN, "without a token"),
        (HEAD + b"data: no chunk\r\n", failures.MALFORMED, "a chunk's size is b'data: no chunk'"),
    ],
)
def test_what_went_wrong_has_a_name(raw: bytes, failure: str, says: str) -> None:
    got, _ = read(raw, closed=True)
    assert (got.failure, says in str(got.error)) == (failure, True), got.error


def test_every_failure_is_in_the_list() -> None:
    names = {value for name, value in vars(failures).items() if name.isupper() and isinstance(value, str)}
    assert names == set(failures.ALL)


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_the_common_form_goes_the_quick_way(kind: str) -> None:
    """And says the same as the long way, which reads the same stream with its last chunk's end cut off."""
    said = [
        chat(t) if kind == "chat" else EACH | {"choices": [{"text": t, "finish_reason": None}]} for t in ["one", " two", ' "3"', " four"]
    ]
    raw = response([*map(event, said), event(chat(finish="stop")), event(b"[DONE]")])
    exchange = Exchange(0, 1, 2)
    exchange.log += [100, raw[:200], 200, raw[200:]]
    head = Head.of(raw)
    assert head
    tally = read_alike(raw, head, exchange)
    assert tally is not None
    assert read_alike(raw[:-2], head, exchange) is None
    exchange.log[3] = raw[200:-2]
    slow, _ = answer(exchange)
    assert (tally.stamps, "".join(tally.texts), tally.events) == (slow.chunk_ns, 'one two "3" four', 6)


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=12),
    padding=st.integers(0, 300),
    size=st.sampled_from([b"%x", b"%X"]),
    odd=st.none() | st.sampled_from([b"id", b"}]", b"\\", b'"', b"00", b"\r\n", b"data: "]),
    cuts=st.lists(st.integers(1, 4000), max_size=20),
)
def test_both_ways_say_the_same(texts: list[str], padding: int, size: bytes, odd: bytes | None, cuts: list[int]) -> None:
    """Whatever the texts, how long its chunks' sizes are and how they are written; and of a stream in which a few bytes are others."""
    events = [
        event(json.dumps({"id": "x" * padding, **said}, ensure_ascii=padding % 2 == 0).encode())
        for said in (chat("", role="assistant"), *map(chat, texts), chat(finish="stop"))
    ]
    events.append(event(b"[DONE]"))
    raw = HEAD + b"".join(size % len(e) + b"\r\n" + e + b"\r\n" for e in events) + b"0\r\n\r\n"
    if odd:
        at = len(HEAD) + cuts[0] % (len(raw) - len(HEAD)) if cuts else len(raw) // 2
        raw = raw[:at] + odd + raw[at + len(odd) :]
    both = [read(raw, tuple(cuts))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workloads.inference.load.parse.read_alike", lambda *_: None)
        both.append(read(raw, tuple(cuts)))
    assert both[0] == both[1]
    assert odd or both[0][0].failure is None


@pytest.mark.parametrize("size", [b"%x", b"%X"])
def test_sizes_of_two_and_three_digits_go_the_quick_way(size: bytes) -> None:
    """Chunks of 253 to 259 bytes, as uvicorn and as hyper write their sizes."""
    plain = len(event(chat("")))
    events = [*(event(chat("x" * (length - plain))) for length in range(253, 260)), event(chat(finish="stop")), event(b"[DONE]")]
    raw = HEAD + b"".join(size % len(e) + b"\r\n" + e + b"\r\n" for e in events) + b"0\r\n\r\n"
    exchange, head = Exchange(0, 1, 2), Head.of(raw)
    exchange.log += [100, raw]
    assert head
    tally = read_alike(raw, head, exchange)
    assert tally is not None
    assert [len(tally.stamps), len("".join(tally.texts))] == [7, sum(range(253, 260)) - 7 * plain]


def generated(text: str, ids: list[int], total: int, finish: str | None = None) -> dict:
    """An event of LMDeploy's /generate (GenerateReqOutput, lmdeploy 0.18.0)."""
    meta = {"prompt_tokens": 3, "completion_tokens": total, "finish_reason": {"type": finish} if finish else None}
    return {"text": text, "output_ids": ids, "meta_info": meta}


def test_lmdeploys_own_endpoint_tells_ids_and_counts() -> None:
    said = [generated("Hel", [5], 1), generated("", [6, 7], 3), generated("lo", [8], 4), generated("!", [], 4, "length")]
    got, _ = read(response([*map(event, said), event(b"[DONE]")]))
    assert (got.failure, got.text, got.finish_reason) == (None, "Hello!", "length")
    assert (got.output_tokens, got.prompt_tokens, got.token_ids) == (4, 3, [5, 6, 7, 8])
    assert (got.chunk_tokens, got.chunk_tokens_from) == ([1, 2, 1], "token_ids")


def test_a_running_count_gives_each_chunks_tokens() -> None:
    """TensorRT-LLM's stream_options.continuous_usage_stats."""
    said = [chat(text) | {"usage": {"prompt_tokens": 3, "completion_tokens": total}} for text, total in (("a", 1), ("bcd", 4), ("e", 5))]
    end = EACH | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}
    got, _ = read(response([*map(event, said), event(chat(finish="length")), event(end), event(b"[DONE]")]))
    assert (got.chunk_tokens, got.chunk_tokens_from, got.output_tokens) == ([1, 3, 1], "usage", 5)
