"""vLLM in this process: continuous batching; a new request enters as soon as one ends (closed loop)."""

import os
import time
from collections.abc import Sequence
from typing import Any

from workloads.inference.frameworks.base import Answer, Params, Prompt, Settings

# Without a GPU: one process, no core binding (it fails in containers), 1 GiB of key-value cache.
CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


def load(path: str, settings: Settings) -> Any:
    import torch

    on_gpu = torch.cuda.is_available()
    for name, value in {**QUIET, **({} if on_gpu else CPU_ENVIRONMENT)}.items():
        os.environ.setdefault(name, value)
    # The step loop below needs the engine in this process on a GPU too.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM

    return LLM(
        model=path,
        dtype={"fp32": "float32", "bf16": "bfloat16"}[settings.precision],
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_concurrency,
        enable_prefix_caching=False,
        enforce_eager=not on_gpu,
        **({"gpu_memory_utilization": settings.memory_fraction} if on_gpu else {}),
    )


def run(prompts: Sequence[Prompt], model: Any, params: Params) -> list[Answer]:
    """Keep `concurrency` requests in the engine; stamp what each engine step yields."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine = model.llm_engine
    answers: dict[str, Answer] = {}
    waiting = list(prompts)
    # An engine takes a request id once, so the ids differ between calls.
    prefix = str(time.perf_counter_ns())
    in_flight = 0
    while waiting or in_flight:
        while waiting and in_flight < params.concurrency:
            prompt = waiting.pop(0)
            sampling = SamplingParams(
                max_tokens=params.max_new_tokens,
                ignore_eos=params.ignore_eos,
                temperature=params.temperature,
                seed=params.seed + prompt.index if params.temperature > 0 else None,
                output_kind=RequestOutputKind.DELTA,
                detokenize=False,
            )
            name = f"{prefix}-{prompt.index}"
            now = time.perf_counter_ns()
            # Closed loop: a request is due when there is room for it.
            answers[name] = Answer(prompt.index, scheduled_ns=now, sent_ns=now)
            engine.add_request(name, {"prompt_token_ids": list(prompt.token_ids)}, sampling)
            in_flight += 1
        for output in engine.step():
            now = time.perf_counter_ns()
            answer, completion = answers[_own_id(output.request_id, answers)], output.outputs[0]
            tokens = list(completion.token_ids)
            if completion.finish_reason == "stop" and not params.ignore_eos and tokens:
                tokens = tokens[:-1]  # the end token is no output
            if tokens:
                answer.chunk_ns.append(now)
                answer.chunk_tokens.append(len(tokens))
                answer.token_ids += tokens
            if output.finished:
                in_flight -= 1
    return list(answers.values())


def _own_id(request_id: str, known: dict[str, Answer]) -> str:
    """Some vLLM versions add a random suffix to the id they were given."""
    return request_id if request_id in known else request_id.rsplit("-", 1)[0]
