"""One server-sent event as the protocols have it: OpenAI's chat and completions, and LMDeploy's /generate (meta_info).

Fields that no metric needs are skipped, whatever they hold. msgspec checks the types of the others while it reads: a tenth of
what json and checks in Python take.
"""

import json
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

MOST = 2**31
"""No count and no token id is as large: what is, isn't one, and would not fit in the tables that results go to."""
Count = Annotated[int, msgspec.Meta(ge=0, lt=MOST)]
TokenIds = list[Count]


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    function: Function | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(msgspec.Struct):
    text: str | UnsetType | None = UNSET
    delta: Delta | None = None
    token_ids: TokenIds | None = None
    finish_reason: str | None = None

    def said(self) -> str:
        """Return the text that it carries: content, reasoning, or a tool call."""
        if self.text is not UNSET:
            return self.text or ""
        delta = self.delta
        if delta is None:
            return ""
        text = (delta.reasoning_content or delta.reasoning or "") + (delta.content or "")
        for call in delta.tool_calls or ():
            if call.function is not None:
                text += (call.function.name or "") + (call.function.arguments or "")
        return text


class Usage(msgspec.Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class Finish(msgspec.Struct):
    type: str | None = None


class MetaInfo(Usage):
    """Its counts run."""

    finish_reason: Finish | None = None


class Event(msgspec.Struct):
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    meta_info: MetaInfo | UnsetType | None = UNSET
    text: str | None = None
    """With meta_info, as output_ids."""
    output_ids: TokenIds | None = None


_one = msgspec.json.Decoder(Event)


def parsed(data: bytes) -> Event | None:
    """Return an event, None for [DONE]; ValueError, with its start, when it is not JSON or not what an event is."""
    if data == b"[DONE]":
        return None
    try:
        return _one.decode(data)
    except ValueError:  # msgspec is stricter than servers are: Python writes NaN, and half a character may stand in an escape
        return _lenient(data)


def _lenient(data: bytes) -> Event:
    try:
        said = json.loads(data)
    except ValueError as error:
        raise ValueError(f"not JSON ({error}): {data[:120].decode('utf-8', 'replace')}") from None
    if not isinstance(said, dict):
        raise ValueError(f"not an object: {json.dumps(said)[:120]}")
    if said.get("error"):
        return Event(error=said["error"])
    try:
        return msgspec.convert(said, Event)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}: {data[:120].decode('utf-8', 'replace')}") from None
