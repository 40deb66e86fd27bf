"""A deterministic engine without a model, for tests and to see the harness's own cost: as a server, the canned one."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from ncdemo.spec.server_args import Effect
from workloads.inference.ended import ended
from workloads.inference.frameworks.base import HOST, Answer, Params, Prompt, Serve, Settings, admit

FIGURES = (
    ("running", "canned:requests_running"),
    ("prompt_tokens", "canned:prompt_tokens_total"),
    ("output_tokens", "canned:generation_tokens_total"),
)
CHANGES: dict[Effect, str] = {"sampling": "own-length", "speed": "ttft-ms itl-ms capacity-tps burst"}


def load(path: str, settings: Settings) -> Any:
    return settings


def run(prompts: Sequence[Prompt], model: Any, params: Params) -> list[Answer]:
    """Return, for each prompt, max_new_tokens of its own tokens, one a chunk, repeated from the start when it is shorter."""
    fits, answers = admit(prompts, params, model.max_model_len)
    for prompt in fits:
        now = time.perf_counter_ns()
        answer = Answer(prompt.index, scheduled_ns=now, sent_ns=now)
        for i in range(params.max_new_tokens):
            answer.token_ids.append(prompt.token_ids[i % len(prompt.token_ids)])
            answer.chunk_ns.append(time.perf_counter_ns())
            answer.chunk_tokens.append(1)
        answers.append(answer)
        ended()
    return answers


def serve(path: str, settings: Settings, port: int) -> Serve:
    """Return the load generator's canned server, which answers as fast as it can."""
    argv = [sys.executable, "-m", "workloads.inference.load.canned", "--host", HOST, "--port", str(port)]
    argv += ["--max-model-len", str(settings.max_model_len), *settings.server_args]
    return Serve(argv=tuple(argv), url=f"http://{HOST}:{port}", model="canned", metrics="/metrics", figures=FIGURES)
