"""Not LMDeploy: see published.py."""

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import published


class _Checked:
    """A class with the published fields and no others."""

    key = ""

    def __init__(self, **named: Any) -> None:
        for name, value in named.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        published.check("lmdeploy", self.key, [name])
        super().__setattr__(name, value)


class TurbomindEngineConfig(_Checked):
    key = "messages.py:TurbomindEngineConfig"


class GenerationConfig(_Checked):
    key = "messages.py:GenerationConfig"


class Engine:
    async def preprocess(self, messages: None, session_id: object, **named: Any) -> dict[str, Any]:
        published.check("lmdeploy", "serve/core/async_engine.py:AsyncEngine.preprocess", ["messages", "session_id", *named])
        assert messages is None, "either messages or input_ids"
        return named

    async def generate(self, request: dict[str, Any], **named: Any) -> AsyncIterator[SimpleNamespace]:
        published.check("lmdeploy", "serve/core/async_engine.py:AsyncEngine.generate", ["request", *named])
        published.check("lmdeploy", "serve/core/async_engine.py:GenOut", ["token_ids"])
        config = request["gen_config"]
        for token in published.tokens(request["input_ids"], config.max_new_tokens, config.ignore_eos):
            await asyncio.sleep(0.001)
            if token != published.END_TOKEN:  # LMDeploy leaves it out
                yield SimpleNamespace(token_ids=[token])
        yield SimpleNamespace(token_ids=[])  # the last one says why it ended


def pipeline(model_path: str, **named: Any) -> SimpleNamespace:
    published.check("lmdeploy", "api.py:pipeline", named)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return SimpleNamespace(async_engine=Engine(), internal_thread=SimpleNamespace(loop=loop), session=object)
