"""What the events of a stream say, gathered one by one. A field of another type than the protocol's is a ValueError that says so."""

import json
from dataclasses import dataclass, field
from typing import Any

MOST = 2**31
"""No count and no token id is as large: what is, isn't one, and would not fit in the tables that results go to."""


@dataclass
class Tally:
    """stamps, ids and running have one entry for each chunk with tokens; ids and running None where a server tells none."""

    stamps: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ids: list[list[int] | None] = field(default_factory=list)
    running: list[int | None] = field(default_factory=list)
    """Output tokens so far, from a usage in the chunk itself."""
    usage: dict[str, int | None] | None = None
    finish_reason: str | None = None
    done: bool = False
    error: str | None = None
    events: int = 0

    def said(self) -> tuple[list[str], list[Any], list[Any], dict[str, int | None] | None, str | None]:
        return self.texts, self.ids, self.running, self.usage, self.finish_reason

    def add_alike(self, text: str, stamps: list[int]) -> None:
        """Add events that carry a text and nothing else; `text` is all of theirs."""
        self.texts.append(text)
        self.stamps += stamps
        self.ids += [None] * len(stamps)
        self.running += [None] * len(stamps)
        self.events += len(stamps)

    def take(self, said: Any, stamp: int) -> None:
        """Take one event as JSON; None is [DONE]. ValueError when it isn't what an event is."""
        if said is None:
            self.done = True
            self.events += 1
            return
        if not isinstance(said, dict):
            raise ValueError(f"not an object: {str(said)[:120]}")
        if said.get("error"):
            self.error = self.error or json.dumps(said["error"])[:200]
            self.events += 1
            return
        usage = _counts(_object(said, "usage"))
        self.usage = usage or self.usage
        if "meta_info" in said:
            self._take_generated(said, stamp)
        for choice in _objects(said, "choices"):
            text, ids = _said(choice), _ids(choice, "token_ids")
            if text or ids:
                self.stamps.append(stamp)
                self.texts.append(text)
                self.ids.append(ids)
                self.running.append(usage.get("completion_tokens"))
            self.finish_reason = _text(choice, "finish_reason") or self.finish_reason
        self.events += 1

    def _take_generated(self, said: dict[str, Any], stamp: int) -> None:
        """Take an event of LMDeploy's /generate: text, output_ids and meta_info, whose counts run."""
        meta = _object(said, "meta_info")
        self.usage = _counts(meta)
        text, ids, finish = _text(said, "text"), _ids(said, "output_ids"), _text(_object(meta, "finish_reason"), "type")
        self.texts.append(text)  # the last one may have a text that was held back, and no token
        if ids:
            self.stamps.append(stamp)
            self.ids.append(ids)
            self.running.append(self.usage.get("completion_tokens"))
        self.finish_reason = finish or self.finish_reason


def parsed(event: bytes) -> Any:
    """Return an event's JSON, None for [DONE]; ValueError, with the event's start, when it is neither."""
    if event == b"[DONE]":
        return None
    try:
        said = json.loads(event)
    except ValueError as error:
        raise ValueError(f"not JSON ({error}): {event[:120].decode('utf-8', 'replace')}") from None
    if said is None:
        raise ValueError("not an object: null")
    return said


def _said(choice: dict[str, Any]) -> str:
    """Return the text that a choice carries: content, reasoning, or a tool call."""
    if "text" in choice:
        return _text(choice, "text")
    delta = _object(choice, "delta")
    text = (_text(delta, "reasoning_content") or _text(delta, "reasoning")) + _text(delta, "content")
    for call in _objects(delta, "tool_calls"):
        function = _object(call, "function")
        text += _text(function, "name") + _text(function, "arguments")
    return text


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    if value is not None and type(value) is not str:
        raise _strange(key, value, "a text")
    return value or ""


def _object(said: dict[str, Any], key: str) -> dict[str, Any]:
    value = said.get(key)
    if value is not None and type(value) is not dict:
        raise _strange(key, value, "an object")
    return value or {}


def _objects(said: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = said.get(key)
    if value is not None and (type(value) is not list or not all(type(one) is dict for one in value)):
        raise _strange(key, value, "a list of objects")
    return value or []


def _ids(said: dict[str, Any], key: str) -> list[int] | None:
    value = said.get(key)
    if value is not None and (type(value) is not list or not all(type(one) is int and 0 <= one < MOST for one in value)):
        raise _strange(key, value, "a list of token ids")
    return value


def _counts(usage: dict[str, Any]) -> dict[str, int | None]:
    """Return the counts of a usage, which may lack one; empty without a usage."""
    counts = {key: usage.get(key) for key in ("prompt_tokens", "completion_tokens")} if usage else {}
    for key, value in counts.items():
        if value is not None and not (type(value) is int and 0 <= value < MOST):
            raise _strange(key, value, "a count")
    return counts


def _strange(key: str, value: Any, what: str) -> ValueError:
    return ValueError(f"{key} is not {what}: {json.dumps(value)[:120]}")
