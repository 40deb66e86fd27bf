"""The bytes of a canned answer: the sends of a stream, each with the tokens it carries."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

WORDS = [" the", " of", " one", " day", " in", " this", " old", " house", " we", " saw", " how", " light", " came", " down", " at", " noon"]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
NOT_OPENAI = {"ignore_eos", "min_tokens", "return_token_ids", "top_k"}
"""Fields that engines know and OpenAI's own endpoint refuses."""


@dataclass(frozen=True)
class Ask:
    """What a request wants."""

    chat: bool
    stream: bool
    tokens: int
    prompt_tokens: int
    usage: bool
    token_ids: bool
    model: str


@dataclass(frozen=True)
class Script:
    """A stream in the order of its sends. `early` goes out at once; sends[i] is due i intervals after the first token."""

    early: bytes
    sends: Sequence[bytes]
    tokens: Sequence[int]
    """Tokens in each send."""
    closes: bool
    """The connection is closed (True) or kept after the last send."""


def ask(path: str, body: dict[str, Any]) -> Ask:
    """Read a request's body. A text prompt counts a token a word."""
    prompt = body.get("prompt", "")
    if isinstance(prompt, str):
        prompt = prompt.split() or [str(m.get("content", "")) for m in body.get("messages", [])]
        prompt = " ".join(prompt).split()
    options = body.get("stream_options") or {}
    wanted = body.get("max_tokens") or body.get("max_completion_tokens") or 16
    return Ask(
        chat="chat" in path, stream=bool(body.get("stream")), tokens=int(wanted), prompt_tokens=len(prompt),
        usage=bool(options.get("include_usage")), token_ids=bool(body.get("return_token_ids")),
        model=str(body.get("model", "canned")),
    )  # fmt: skip


def frame(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def event(payload: bytes) -> bytes:
    return frame(b"data: " + payload + b"\n\n")


@lru_cache(1024)  # the answer is made once for requests that are alike, so that the server is fast
def script(want: Ask, fault: str | None, burst: int, always_usage: bool) -> Script:
    """Lay out the stream of a request; the role chunk goes with the first token, as vLLM sends it, unless a fault sends it alone."""
    pieces = _pieces(want, burst, 4 if fault == "multi_token" else 1)
    role = event(_choice(want, {"role": "assistant", "content": ""})) if want.chat else event(_choice(want, {"content": ""}))
    usage = event(_usage(want, 0 if fault == "no_token" else want.tokens)) if want.usage or always_usage else b""
    done = event(_choice(want, {}, finish="length")) + (b"" if fault == "no_usage" else usage) + event(b"[DONE]") + END
    if fault == "no_token":
        return Script(b"", [HEAD + role + done], [0], closes=False)
    early, first = (HEAD + role, b"") if fault == "empty_first" else (b"", HEAD + (role if want.chat else b""))
    sends, tokens = [piece for piece, _ in pieces], [count for _, count in pieces]
    sends[0] = first + sends[0]
    half = (len(sends) + 1) // 2
    odd = {
        "truncate": b"",
        "no_done": END,
        "hang_mid": b"",
        "malformed": event(b'{"id": "chatcmpl-') + done,
        "bad_framing": b"zz\r\ndata: \n\n\r\n",
        "negative_size": b"-7\r\ndata: \n\n\r\n" + END,
        "odd_choice": event(_dump(_outer(want) | {"choices": [None]})) + done,
        "odd_usage": event(_dump(_outer(want) | {"choices": [], "usage": {"completion_tokens": "two"}})) + event(b"[DONE]") + END,
        "error_event": event(b'{"error": {"message": "canned error", "type": "server_error", "code": 500}}') + event(b"[DONE]") + END,
    }
    if fault in odd:
        sends, tokens = sends[:half], tokens[:half]
        sends[-1] += odd[fault]
    else:
        sends[-1] += done
    return Script(early, sends, tokens, closes=fault in ("truncate", "bad_framing", "negative_size"))


def _pieces(want: Ask, burst: int, width: int) -> list[tuple[bytes, int]]:
    """Return (bytes, tokens) of each send: `burst` events of `width` tokens."""
    before, after = _around(want)
    counts = [width] * (want.tokens // width) + ([want.tokens % width] if want.tokens % width else [])
    known: dict[tuple[int, int], bytes] = {}
    events, position = [], 0
    for count in counts:
        key = (position % len(WORDS), count)
        if want.token_ids or key not in known:
            text = "".join(WORDS[(position + i) % len(WORDS)] for i in range(count))
            ids = b',"token_ids":%b' % json.dumps(list(range(position, position + count))).encode() if want.token_ids else b""
            known[key] = event(before + json.dumps(text).encode() + after.replace(b"@ids", ids))
        events.append((known[key], count))
        position += count
    groups = [events[i : i + burst] for i in range(0, len(events), burst)]
    return [(b"".join(e for e, _ in group), sum(n for _, n in group)) for group in groups]


def _around(want: Ask) -> tuple[bytes, bytes]:
    """Return what stands before and after the text in a token's event; @ids marks where token ids go."""
    before, after = _choice(want, {"content": "@text"}).split(b'"@text"')
    return before, after.replace(b',"finish_reason"', b'@ids,"finish_reason"', 1)


def _choice(want: Ask, delta: dict[str, str], finish: str | None = None) -> bytes:
    said = {"delta": delta} if want.chat else {"text": delta.get("content", "")}
    return _dump(_outer(want) | {"choices": [{"index": 0, **said, "logprobs": None, "finish_reason": finish}]})


def _usage(want: Ask, tokens: int) -> bytes:
    return _dump(_outer(want) | {"choices": [], "usage": usage(want, tokens)})


def usage(want: Ask, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": want.prompt_tokens, "total_tokens": want.prompt_tokens + tokens, "completion_tokens": tokens}


def _outer(want: Ask) -> dict[str, Any]:
    kind = "chat.completion.chunk" if want.chat else "text_completion"
    return {
        "id": "chatcmpl-0000000000000000" if want.chat else "cmpl-0000000000000000",
        "object": kind,
        "created": 1764000000,
        "model": want.model,
    }


def whole(want: Ask) -> dict[str, Any]:
    """Return the answer of a request that isn't streamed."""
    text = "".join(WORDS[i % len(WORDS)] for i in range(want.tokens))
    said = {"message": {"role": "assistant", "content": text}} if want.chat else {"text": text}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length"}
    kind = "chat.completion" if want.chat else "text_completion"
    return _outer(want) | {"object": kind, "choices": [choice], "usage": usage(want, want.tokens)}


def response(status: int, payload: Any, content_type: str = "application/json") -> bytes:
    """Return a whole HTTP response with a body of known length."""
    body = payload if isinstance(payload, bytes) else _dump(payload)
    reason = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status, reason.get(status, "Error").encode(), content_type.encode(), len(body), body,
    )  # fmt: skip


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
