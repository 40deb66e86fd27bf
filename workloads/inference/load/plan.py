"""What a load is: where to, what, when, and by how many processes; and what is told afterwards."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from ncdemo.spec.base import SpecError
from workloads.inference.frameworks.base import Answer, Params, Prompt
from workloads.inference.load.schedule import Closed, Open

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Target:
    """An OpenAI-compatible endpoint."""

    url: str
    """Like http://127.0.0.1:8000, or https://host/base; /v1/... is added unless the path ends in /v1 already."""
    model: str
    endpoint: Literal["completions", "chat", "generate"] = "completions"
    """generate: LMDeploy's own, as its completions take text alone."""
    api_key_env: str | None = None
    """Environment variable that holds the bearer key."""
    timeout_s: float = 600.0
    """From sending a request to its last byte."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request's body, the engine's own (return_token_ids, ...)."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SpecError(f"url = {self.url!r}: give http://HOST:PORT or https://HOST")
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise SpecError(f"api_key_env = {self.api_key_env!r}: that environment variable is empty; export the endpoint's key in it")

    @cached_property
    def tls(self) -> bool:
        return self.url.startswith("https:")

    @cached_property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname
        return parts.hostname, parts.port or (443 if self.tls else 80)

    @cached_property
    def path(self) -> str:
        base = urlsplit(self.url).path.rstrip("/")
        if self.endpoint == "generate":
            return f"{base.removesuffix('/v1')}/generate"
        return (base if base.endswith("/v1") else f"{base}/v1") + {"completions": "/completions", "chat": "/chat/completions"}[
            self.endpoint
        ]


@dataclass(frozen=True)
class Request:
    """One request, ready: the bytes that are sent."""

    index: int
    data: bytes


def body(target: Target, params: Params, *, prompt: Prompt | str | None = None, messages: Sequence[dict[str, str]] | None = None) -> bytes:
    """Return a request's JSON: token ids or text for completions and generate, messages (or a text as the user's) for chat."""
    asked: dict[str, Any] = {"model": target.model, "stream": True, "stream_options": {"include_usage": True}}
    if target.endpoint == "generate":
        if prompt is None:
            raise SpecError("endpoint = 'generate': takes token ids or a text, not messages; use endpoint = 'chat'")
        asked = {"stream": True} | ({"prompt": prompt} if isinstance(prompt, str) else {"input_ids": list(prompt.token_ids)})
    elif target.endpoint == "chat":
        if messages is None and not isinstance(prompt, str):
            raise SpecError("endpoint = 'chat': takes messages or a text, not token ids; use endpoint = 'completions'")
        asked["messages"] = list(messages) if messages is not None else [{"role": "user", "content": prompt}]
    elif prompt is None:
        raise SpecError("endpoint = 'completions': takes token ids or a text, not messages; use endpoint = 'chat'")
    else:
        asked["prompt"] = prompt if isinstance(prompt, str) else list(prompt.token_ids)
    asked |= {"max_tokens": params.max_new_tokens, "temperature": params.temperature}
    if target.endpoint == "generate":  # it has no seed, always samples, and from 50 tokens unless told otherwise
        asked |= {"top_k": 0} if params.temperature > 0 else {"temperature": 1.0, "top_k": 1}
    elif params.temperature > 0:
        asked["seed"] = params.seed
    if params.ignore_eos:
        # No min_tokens beside it: vLLM and SGLang then forbid the end token, TensorRT-LLM the last token of the vocabulary.
        asked["ignore_eos"] = True
    return _encode(asked | target.fields).encode()


def request(target: Target, index: int, payload: bytes) -> Request:
    """Return the whole HTTP request of a JSON body; its X-Request-Id is the index."""
    host, port = target.address
    key = f"Authorization: Bearer {os.environ[target.api_key_env]}\r\n" if target.api_key_env else ""
    shown = host if port == (443 if target.tls else 80) else f"{host}:{port}"
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {shown}\r\nUser-Agent: ncdemo\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nX-Request-Id: {index}\r\n{key}Content-Length: {len(payload)}\r\n\r\n"
    )
    return Request(index, head.encode("latin-1") + payload)


@dataclass(frozen=True)
class Plan:
    """A load: request i is due at schedule.offsets_s[i] (Open), or when one of `concurrency` slots is free (Closed)."""

    target: Target
    requests: tuple[Request, ...]
    schedule: Closed | Open
    processes: int = 1
    connections: int | None = None
    """Opened before the window; None: the concurrency, or for an open load as many as requests, up to 256. More are opened as needed."""

    def __post_init__(self) -> None:
        if not self.requests:
            raise SpecError("load: there is no request to send; give at least one prompt")
        if self.processes < 1:
            raise SpecError(f"load: processes = {self.processes}: must be at least 1")
        if isinstance(self.schedule, Open) and len(self.schedule.offsets_s) != len(self.requests):
            raise SpecError(
                f"load: {len(self.requests)} requests, but {len(self.schedule.offsets_s)} times; give one time for each request"
            )


@dataclass
class Report:
    """What the client itself did. Seconds of CPU are user and system time of its processes."""

    processes: int
    window_s: float
    """From the common start to the last byte of any process."""
    cpu_window_s: float
    """While requests were in flight."""
    cpu_parse_s: float
    """Afterwards, reading texts and tokens out of what arrived."""
    busiest_cpu_share: float
    """The busiest process's cpu_window_s / its window: near 1 the client is the limit."""
    events: int
    """Server-sent events received."""
    reads: int
    """Reads from sockets; fewer than events when several arrived together."""
    max_lateness_s: float
    """The largest sent - scheduled."""
    connections_opened: int
    connections_opened_in_window: int
    died: int = 0
    """Processes of ours that ended without telling; their requests are failures."""
    hung: int = 0
    """Processes of ours that gave the load up: request after request brought nothing within timeout_s."""


@dataclass
class LoadResult:
    answers: list[Answer]
    """One for each request, ordered by index."""
    report: Report
