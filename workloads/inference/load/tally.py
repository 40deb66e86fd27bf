"""What the events of a stream say, gathered one by one."""

import json
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from workloads.inference.load.event import Event, MetaInfo, Usage


@dataclass
class Tally:
    """stamps, ids and running have one entry for each chunk with tokens; ids and running None where a server tells none."""

    stamps: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ids: list[list[int] | None] = field(default_factory=list)
    running: list[int | None] = field(default_factory=list)
    """Output tokens so far, from a usage in the chunk itself."""
    usage: Usage | None = None
    finish_reason: str | None = None
    done: bool = False
    error: str | None = None
    events: int = 0

    def said(self) -> tuple[list[str], list[Any], list[Any], Usage | None, str | None]:
        return self.texts, self.ids, self.running, self.usage, self.finish_reason

    def add_alike(self, text: str, stamps: list[int]) -> None:
        """Add events that carry a text and nothing else; `text` is all of theirs."""
        self.texts.append(text)
        self.stamps += stamps
        self.ids += [None] * len(stamps)
        self.running += [None] * len(stamps)
        self.events += len(stamps)

    def take(self, event: Event | None, stamp: int) -> None:
        """Take one event; None is [DONE]."""
        self.events += 1
        if event is None:
            self.done = True
            return
        if event.error:
            self.error = self.error or json.dumps(event.error)[:200]
            return
        usage = event.usage
        self.usage = usage or self.usage
        if event.meta_info is not UNSET:
            self._take_generated(event, event.meta_info or MetaInfo(), stamp)
        for choice in event.choices or ():
            text, ids = choice.said(), choice.token_ids
            if text or ids:
                self.stamps.append(stamp)
                self.texts.append(text)
                self.ids.append(ids)
                self.running.append(usage.completion_tokens if usage else None)
            self.finish_reason = choice.finish_reason or self.finish_reason

    def _take_generated(self, event: Event, meta: MetaInfo, stamp: int) -> None:
        """Take an event of LMDeploy's /generate."""
        self.usage = meta
        self.texts.append(event.text or "")  # the last one may have a text that was held back, and no token
        if event.output_ids:
            self.stamps.append(stamp)
            self.ids.append(event.output_ids)
            self.running.append(meta.completion_tokens)
        self.finish_reason = (meta.finish_reason.type if meta.finish_reason else None) or self.finish_reason
