"""What the events of a stream say, gathered one by one."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """stamps, ids and running have one entry for each chunk with tokens; ids and running None where a server tells none."""

    stamps: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ids: list[list[int] | None] = field(default_factory=list)
    running: list[int | None] = field(default_factory=list)
    """Output tokens so far, from a usage in the chunk itself."""
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    done: bool = False
    error: str | None = None
    events: int = 0

    def said(self) -> tuple[list[str], list[Any], list[Any], dict[str, Any] | None, str | None]:
        return self.texts, self.ids, self.running, self.usage, self.finish_reason

    def add_alike(self, text: str, stamps: list[int]) -> None:
        """Add events that carry a text and nothing else; `text` is all of theirs."""
        self.texts.append(text)
        self.stamps += stamps
        self.ids += [None] * len(stamps)
        self.running += [None] * len(stamps)
        self.events += len(stamps)

    def take(self, said: Any, stamp: int) -> None:
        """Take one event as JSON; None is [DONE]. ValueError when it isn't an object."""
        if said is None:
            self.done = True
            self.events += 1
            return
        if not isinstance(said, dict):
            raise ValueError(f"not an object: {str(said)[:120]}")
        self.events += 1
        if said.get("error"):
            self.error = self.error or json.dumps(said["error"])[:200]
            return
        if said.get("usage"):
            self.usage = said["usage"]
        if "meta_info" in said:
            self._take_generated(said, stamp)
        for choice in said.get("choices") or ():
            text, ids = _said(choice), choice.get("token_ids")
            if text or ids:
                self.stamps.append(stamp)
                self.texts.append(text)
                self.ids.append(ids)
                self.running.append((said.get("usage") or {}).get("completion_tokens"))
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _take_generated(self, said: dict[str, Any], stamp: int) -> None:
        """Take an event of LMDeploy's /generate: text, output_ids and meta_info, whose counts run."""
        meta = said["meta_info"]
        self.usage = {"prompt_tokens": meta.get("prompt_tokens"), "completion_tokens": meta.get("completion_tokens")}
        self.texts.append(said.get("text") or "")  # the last one may have a text that was held back, and no token
        if said.get("output_ids"):
            self.stamps.append(stamp)
            self.ids.append(said["output_ids"])
            self.running.append(meta.get("completion_tokens"))
        self.finish_reason = (meta.get("finish_reason") or {}).get("type") or self.finish_reason


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
        return choice["text"] or ""
    delta = choice.get("delta") or {}
    text = (delta.get("reasoning_content") or delta.get("reasoning") or "") + (delta.get("content") or "")
    calls = delta.get("tool_calls")
    if not calls:
        return text
    return text + "".join((c.get("function") or {}).get(part) or "" for c in calls for part in ("name", "arguments"))
