"""What the canned server answers to each request: its models and counters, a refusal, a fault, a whole answer or a stream's script.

No socket and no clock is here: the server sends what this says.

    answer = Answers(Config(), served).to(["POST", "/v1/completions"], headers, body)
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TextIO

from ncdemo import __version__
from workloads.inference.load.canned import reply
from workloads.inference.load.canned.faults import drawn


@dataclass(frozen=True)
class Config:
    """How the server answers. No ttft_ms, itl_ms and capacity_tps: as fast as it can, one event of each stream in turn."""

    host: str = "127.0.0.1"
    port: int = 0
    ttft_ms: float = 0.0
    itl_ms: float = 0.0
    capacity_tps: float | None = None
    """Tokens per second that all streams share, in turn."""
    burst: int = 1
    always_usage: bool = False
    model: str = "canned"
    max_model_len: int | None = None
    own_length: int | None = None
    strict: bool = False
    chat_only: bool = False
    key: str | None = None
    chances: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    stall_at_s: float | None = None
    stall_s: float = 0.0
    exit_at: int | None = None
    log: TextIO | None = None


class Served(NamedTuple):
    """What the server counts."""

    connections: int
    output_tokens: int
    running: int


@dataclass(frozen=True)
class Answer:
    """Bytes or a script, or neither: then nothing is sent."""

    data: bytes = b""
    script: reply.Script | None = None
    ordinal: int | None = None
    """Of a request for tokens, from 0."""
    about: dict[str, Any] | None = None
    """What the log says of it; None: it isn't logged."""
    tokens: int = 0
    """Output tokens in `data`."""
    closes: bool = False


class Answers:
    def __init__(self, config: Config, served: Callable[[], Served]) -> None:
        self.config, self._served = config, served
        self._requests = self._prompt_tokens = 0

    def to(self, line: list[str], headers: dict[str, str], body: bytes) -> Answer:
        """Take the request line, split, the headers by their names in lower case, and the body. Raise SystemExit(9) at Config.exit_at."""
        method, path = line[0], line[1].partition("?")[0]
        if self.config.key and (given := headers.get("authorization", "")) != f"Bearer {self.config.key}":
            return Answer(reply.response(401, {"error": {"message": f"Incorrect API key provided: {given}"}}))
        if method == "POST" and path.endswith("/completions") and (not self.config.chat_only or "chat" in path):
            return self._generated(path, headers, body)
        if path in ("/health", "/reset_prefix_cache", "/flush_cache", "/ping"):
            return Answer(reply.response(200, {}))
        if path == "/version":
            return Answer(reply.response(200, {"version": f"canned {__version__}"}))
        if path == "/v1/models":
            model = {"id": self.config.model, "object": "model", "owned_by": "canned", "max_model_len": self.config.max_model_len}
            return Answer(reply.response(200, {"object": "list", "data": [model]}))
        if path == "/metrics":
            return Answer(reply.response(200, self._counters().encode(), "text/plain; version=0.0.4"))
        return Answer(reply.response(404, {"error": {"message": f"no such path: {method} {path}"}}))

    def _counters(self) -> str:
        served = self._served()
        counters = {
            "connections": served.connections,
            "requests": self._requests,
            "prompt_tokens": self._prompt_tokens,
            "generation_tokens": served.output_tokens,
        }
        text = "".join(f"# TYPE canned:{name}_total counter\ncanned:{name}_total {value}\n" for name, value in counters.items())
        return text + f"# TYPE canned:requests_running gauge\ncanned:requests_running {served.running}\n"

    def _generated(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        config, ordinal = self.config, self._requests
        self._requests += 1
        if config.exit_at is not None and self._requests > config.exit_at:
            raise SystemExit(9)
        try:
            asked = json.loads(body)
            want = reply.ask(path, asked)
        except (ValueError, TypeError, AttributeError):
            return Answer(reply.response(400, {"error": {"message": "the body is not a JSON request"}}), ordinal=ordinal)
        if config.strict and (unknown := reply.NOT_OPENAI & asked.keys()):
            message = f"Unrecognized request argument supplied: {', '.join(sorted(unknown))}"
            return Answer(reply.response(400, {"error": {"message": message, "type": "invalid_request_error"}}), ordinal=ordinal)
        want = want if config.own_length is None else replace(want, tokens=min(want.tokens, config.own_length))
        fault = asked.get("canned_fault") or headers.get("x-canned-fault") or drawn(config.chances, config.seed, ordinal)
        self._prompt_tokens += want.prompt_tokens
        answer = Answer(ordinal=ordinal, about={"ordinal": ordinal, "request_id": headers.get("x-request-id"), "fault": fault})
        if config.max_model_len is not None and want.prompt_tokens + want.tokens > config.max_model_len:
            message = f"maximum context length is {config.max_model_len} tokens; asked for {want.prompt_tokens} + {want.tokens}"
            return replace(answer, data=reply.response(400, {"error": {"message": message, "type": "BadRequestError", "code": 400}}))
        if fault and fault.startswith("http_"):
            status = int(fault[5:])
            return replace(answer, data=reply.response(status, {"error": {"message": f"canned {status}", "code": status}}))
        if fault in ("close_early", "hang"):
            return replace(answer, closes=fault == "close_early")
        if not want.stream:
            return replace(answer, data=reply.response(200, reply.whole(want)), tokens=want.tokens)
        return replace(answer, script=reply.script(want, fault, config.burst, config.always_usage))
