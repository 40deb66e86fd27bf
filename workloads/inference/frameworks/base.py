"""What goes into an engine and what comes out: raw facts. metrics.py alone turns them into metrics."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ncdemo.spec.base import SpecError
from workloads.inference.ended import ended

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
OWN_PYTHON = ("sglang", "lmdeploy")
"""Engines that may have a Python of their own beside the benchmark's."""
HOST = "127.0.0.1"
"""Servers are started beside the client and are nobody else's business."""


class ModelMissing(SpecError):
    """A model isn't there, or lacks what makes it one."""


@dataclass(frozen=True)
class Settings:
    """How a model is loaded, the same for every engine of a benchmark."""

    precision: Literal["fp32", "bf16"]
    max_model_len: int
    memory_fraction: float
    """Share of the GPU's memory; without a GPU no engine uses it."""
    max_concurrency: int
    tensor_parallel_size: int = 1
    prefix_cache: bool = False
    """Off: no engine answers from an earlier request's work."""
    endpoint_url: str = ""
    """Of `openai`: where the server is, up to but without /v1."""
    endpoint: Literal["completions", "chat"] = "completions"
    """Of `openai`: what it is asked through."""
    server_args: tuple[str, ...] = ()
    """Appended to the server's command as they are."""


@dataclass(frozen=True)
class Prompt:
    index: int
    token_ids: tuple[int, ...]
    """The very ids every engine must be given."""
    messages: tuple[dict[str, str], ...] = field(default=(), compare=False)
    """What they were made of, for an endpoint that takes chats alone and applies the template itself."""


@dataclass(frozen=True)
class Params:
    """How a cell generates."""

    concurrency: int
    max_new_tokens: int
    ignore_eos: bool
    temperature: float
    seed: int
    arrival_seed: int = 0
    """Of an open loop's random gaps; engines have no use for it."""


@dataclass
class Answer:
    """One request's facts. Stamps are time.perf_counter_ns."""

    index: int
    scheduled_ns: int
    sent_ns: int
    chunk_ns: list[int] = field(default_factory=list)
    """When each chunk with tokens was there."""
    chunk_tokens: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    error: str | None = None
    """Why there is no full answer, in a sentence."""
    failure: str | None = None
    """The same as one of workloads.inference.load.failures; None for engines in this process."""
    text: str | None = None
    """What a server answered; engines in this process give token_ids."""
    output_tokens: int | None = None
    """As the server counted them (usage)."""
    prompt_tokens: int | None = None
    """As the server counted them (usage)."""
    chunk_tokens_from: Literal["engine", "token_ids", "usage", "one_each", "unknown"] = "engine"
    """How chunk_tokens is known: from the engine, from token ids or a running usage in each chunk, from a final usage that equals
    the number of chunks; `one_each` when the server counts nothing, `unknown` when its count is another: then each is 1, and
    gaps between tokens can't be known."""
    first_text: str | None = None
    """What the first of several chunks says, where nobody told how many tokens it has."""
    finish_reason: str | None = None
    http_status: int | None = None


@dataclass(frozen=True)
class Serve:
    """How an engine's OpenAI-compatible server is started, asked and reset. `{folder}` stands for the server's own folder."""

    argv: tuple[str, ...]
    """The command; empty when someone else runs the server."""
    url: str
    """Without /v1."""
    model: str
    """The name to ask for."""
    env: tuple[tuple[str, str], ...] = ()
    """Beside this process's own environment."""
    files: tuple[tuple[str, str], ...] = ()
    """Path in the server's folder and text of what the command wants to read."""
    health: str = "/health"
    api_key_env: str | None = None
    """Environment variable with the key that every question needs; only its name is ever written down."""
    metrics: str | None = None
    """Path of its own figures in Prometheus' text format."""
    metrics_prefix: str = ""
    figures: tuple[tuple[str, str], ...] = ()
    """What ncdemo.spec.result_engine.EngineSample calls a figure, and the engine's name for it there."""
    prefix_cache: Literal["off", "on", "unknown"] = "off"
    endpoint: Literal["completions", "generate", "chat"] = "completions"
    """Which of its endpoints is asked: one that takes token ids, but for `chat`."""
    fields: tuple[tuple[str, Any], ...] = ()
    """Of every request's body, beside the protocol's own."""
    reset: str | None = None
    """What to POST to for an empty prefix cache; None when it is off or the engine offers nothing."""


def interpreter(engine: str) -> str:
    """Return the Python that runs an engine: NCDEMO_<ENGINE>_PYTHON, since engines' requirements conflict, or this one."""
    return (os.environ.get(f"NCDEMO_{engine.upper()}_PYTHON") if engine in OWN_PYTHON else None) or sys.executable


def check_model(path: str) -> None:
    """Raise ModelMissing for a folder that isn't there; a hub id is left to the engine."""
    if path.startswith(("/", ".", "~")) and not (Path(path).expanduser() / "config.json").is_file():
        raise ModelMissing(
            f"model.name = {path!r}: no such model folder (config.json is looked for); give a Hugging Face folder or a hub id"
        )


def check_own(name: str, words: Sequence[str], argv: Sequence[str]) -> None:
    """Raise SpecError for an argument of the user's that ncdemo sets itself: the result would say one thing and the server do another."""
    ours = {_option(word) for word in argv if word.startswith("--")}
    for word in words:
        if word.startswith("-") and _option(word) in ours:
            raise SpecError(f"server_args.{name}: {word} is set by ncdemo already; use the benchmark's own key for it, and remove it here")


def _option(word: str) -> str:
    """Return an option's one name: engines take - for _, a `no-` before it, and three names for tensor parallelism."""
    option = word.partition("=")[0].lstrip("-").replace("_", "-").removeprefix("no-")
    return "tp" if option in ("tp", "tp-size", "tensor-parallel-size") else option


def admit(prompts: Sequence[Prompt], params: Params, max_model_len: int) -> tuple[list[Prompt], list[Answer]]:
    """Return the prompts that fit and a failed answer for each that doesn't: its own failure, not its batch's."""
    fits: list[Prompt] = []
    refused: list[Answer] = []
    for prompt in prompts:
        needed = len(prompt.token_ids) + params.max_new_tokens
        if needed <= max_model_len and prompt.token_ids:
            fits.append(prompt)
            continue
        now = time.perf_counter_ns()
        asked = f"{len(prompt.token_ids)} prompt and {params.max_new_tokens} output tokens"
        problem = f"prompt too long: {asked}, max_model_len is {max_model_len}" if prompt.token_ids else "empty prompt"
        refused.append(Answer(prompt.index, now, now, error=problem))
        ended()
    return fits, refused


async def closed_loop(prompts: Sequence[Prompt], concurrency: int, ask: Callable[[Prompt, Answer], Awaitable[None]]) -> list[Answer]:
    """Keep `concurrency` requests in an asynchronous engine; `ask` puts what it answers, stamped, into the answer."""
    room = asyncio.Semaphore(concurrency)

    async def one(prompt: Prompt) -> Answer:
        async with room:
            now = time.perf_counter_ns()
            answer = Answer(prompt.index, scheduled_ns=now, sent_ns=now)  # due when there is room for it
            await ask(prompt, answer)
            ended()
            return answer

    return list(await asyncio.gather(*map(one, prompts)))


def take(answer: Answer, tokens: Sequence[int]) -> None:
    """Stamp and keep the tokens of one output; one without any is no output."""
    if tokens:
        answer.chunk_ns.append(time.perf_counter_ns())
        answer.chunk_tokens.append(len(tokens))
        answer.token_ids += tokens
