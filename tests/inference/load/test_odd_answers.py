"""Answers of a shape that no protocol has: each is its own request's failure, and can be recorded."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.result_bench import RequestRecord
from ncdemo.spec.sweep import cells
from tests.inference.load.test_parse import EACH, FULL, chat, event, read, response
from workloads.inference.frameworks.base import Answer
from workloads.inference.load import failures
from workloads.inference.load.response import Head, ends_chunked
from workloads.inference.metrics import request_record

PLANNED = cells(BenchSpec())[0]
STRANGE = [
    {"choices": [None]}, {"choices": "x"}, {"choices": {"0": {}}}, {"choices": [[]]}, {"usage": 5}, {"usage": [1]},
    {"choices": [{"delta": "x"}]}, {"choices": [{"delta": {"content": ["a"]}}]}, {"choices": [{"delta": {"reasoning": {}}}]},
    {"choices": [{"text": 5}]}, {"choices": [{"text": "a", "token_ids": 5}]}, {"choices": [{"text": "a", "token_ids": ["1"]}]},
    {"choices": [{"text": "a", "token_ids": [-1]}]}, {"choices": [{"text": "a", "finish_reason": 1}]},
    {"choices": [{"delta": {"tool_calls": "x"}}]}, {"choices": [{"delta": {"tool_calls": [None]}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": "f"}]}}]}, {"choices": [{"delta": {"tool_calls": [{"function": {"name": 1}}]}}]},
    *({"choices": [], "usage": {"completion_tokens": n}} for n in ("2", -1, 2.0, True, [], 10**400)),
    {"choices": [], "usage": {"prompt_tokens": "3"}},
    {"meta_info": "x"}, {"meta_info": {"finish_reason": "stop"}}, {"meta_info": {"completion_tokens": "1"}}, {"meta_info": {}, "output_ids": 7},
]  # fmt: skip


@pytest.mark.parametrize("said", STRANGE)
def test_an_event_of_another_shape_is_its_requests_own_failure(said: dict) -> None:
    for events in ([*FULL[:3], event(said), *FULL[3:]], [*FULL[:-1], event(said), FULL[-1]]):
        got, _ = read(response(events))
        assert (got.failure, "of the stream: " in str(got.error)) == (failures.MALFORMED, True)
        assert_recordable(got)


def test_json_too_deep_is_a_failure_too() -> None:
    got, _ = read(response([*FULL[:3], event(b"[" * 200_000), *FULL[3:]]))
    assert got.failure == failures.MALFORMED


def test_half_a_character_can_be_recorded() -> None:
    """JSON may name one; UTF-8 can't hold it. Two halves that came in two events are one character."""
    got, _ = read(
        response([event(b'{"choices":[{"text":"a\\ud83d"}]}'), event(b'{"choices":[{"text":"\\ude00"}]}'), event(chat(finish="stop"))])
    )
    assert (got.failure, got.text) == (None, "a\U0001f600")
    got, _ = read(response([event(b'{"choices":[{"text":"a\\ud83d"}]}'), event(b'"\\ud83d"')]))
    assert (got.failure, got.text) == (failures.MALFORMED, "a\ufffd")
    assert_recordable(got)


@pytest.mark.parametrize("size", [b"-7", b"-0", b"+5", b"", b" 5", b"zz"])
def test_a_chunk_of_a_size_that_is_none_ends_the_exchange(size: bytes) -> None:
    """A negative one would be read again and again."""
    raw = response(FULL[:3], end=b"") + size + b"\r\ndata: {}\n\n\r\n0\r\n\r\n"
    with pytest.raises(ValueError, match="a chunk's size is"):
        ends_chunked(raw[-40:], [1, raw])
    got, _ = read(raw)
    assert (got.failure, "a chunk's size is" in str(got.error)) == (failures.MALFORMED, True)


def test_an_error_page_in_broken_chunks_keeps_its_status() -> None:
    got, _ = read(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n-4\r\nbusy", closed=True)
    assert (got.failure, got.error) == (failures.HTTP_5XX, "HTTP 500: -4\r\nbusy")


def test_a_length_of_thousands_of_digits_is_no_length() -> None:
    head = Head.of(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
    assert head
    assert (head.length, head.keeps) == (None, False)


def test_a_count_of_nothing_beside_tokens_is_no_answer() -> None:
    usage = event(EACH | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 0}})
    got, _ = read(response([*FULL[:-2], usage, FULL[-1]]))
    assert (got.failure, got.error) == (failures.NO_TOKEN, "the server counted 0 output tokens in 7 chunks with a text")
    assert_recordable(got)


def assert_recordable(got: Answer) -> None:
    """An answer becomes a request's record, and that a line of JSON."""
    record = request_record(got, PLANNED, zero_ns=0, prompt_tokens=3, text=got.text)
    assert record.ok == (got.failure is None)
    assert bool(record.failure) != record.ok
    assert RequestRecord.model_validate_json(record.model_dump_json()) == record


KEYS = [
    "choices", "usage", "completion_tokens", "prompt_tokens", "delta", "text", "content", "reasoning", "tool_calls", "function", "name",
    "token_ids", "finish_reason", "meta_info", "output_ids", "error", "type",
]  # fmt: skip
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(["stop", "a", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY, min_size=1, max_size=4), st.integers(0, len(FULL)))
def test_whatever_json_comes_an_answer_is_recorded(said: list[Any], at: int) -> None:
    got, _ = read(response([*FULL[:at], *map(event, said), *FULL[at:]]))
    assert_recordable(got)
    assert "can't be read" not in str(got.error), "each is foreseen"


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=30), st.integers(0, len(response(FULL)) - 1), st.integers(0, 40), st.booleans())
def test_whatever_bytes_come_an_answer_is_recorded(odd: bytes, at: int, gone: int, closed: bool) -> None:
    whole = response(FULL)
    raw = whole[:at] + odd + whole[at + gone :]
    if head := Head.of(raw):
        with suppress(ValueError):
            ends_chunked(raw[head.size :] or raw, [1, raw])
    got, _ = read(raw, (at,), closed)
    assert_recordable(got)
    assert "can't be read" not in str(got.error), "each is foreseen"
