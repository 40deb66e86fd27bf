"""Not SGLang: see published.py."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import published


class Engine:
    def __init__(self, *, server_args: list[str]) -> None:
        self.server_args = server_args
        self.loop = asyncio.new_event_loop()

    async def async_generate(self, **named: Any) -> AsyncIterator[dict[str, Any]]:
        published.check("sglang", "srt/entrypoints/engine.py:Engine.async_generate", named)
        sampling = named["sampling_params"]
        published.check("sglang", "srt/sampling/sampling_params.py:SamplingParams", sampling)
        assert named["stream"] is True
        return self._outputs(named["input_ids"], sampling["max_new_tokens"], sampling["ignore_eos"])

    async def _outputs(self, prompt: list[int], count: int, ignore_eos: bool) -> AsyncIterator[dict[str, Any]]:
        """As with --incremental-streaming-output: each output is what is new, and the end token is told."""
        made = list(published.tokens(prompt, count, ignore_eos))
        for i, token in enumerate(made):
            await asyncio.sleep(0.001)
            kind = None if i + 1 < len(made) else {"type": "stop" if token == published.END_TOKEN else "length"}
            yield {"output_ids": [token], "meta_info": {"finish_reason": kind}}
