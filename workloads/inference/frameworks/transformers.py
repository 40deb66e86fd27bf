"""transformers' own generate: static batches of `concurrency` prompts; a batch ends when its longest answer does."""

import copy
import time
from collections.abc import Sequence
from typing import Any

from workloads.inference.ended import ended
from workloads.inference.frameworks.base import Answer, Params, Prompt, Settings, admit


def load(path: str, settings: Settings) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.precision]
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    # generate() fills what isn't asked for from the model's own settings: its end token, which must not stop an answer that
    # ignores it, and penalties and the like, which no other engine is given.
    stop, pad = model.generation_config.eos_token_id, model.generation_config.pad_token_id
    model.ncdemo_stop_ids = stop if isinstance(stop, list) else [] if stop is None else [stop]
    model.ncdemo_max_model_len = settings.max_model_len
    model.generation_config, model.config.eos_token_id = GenerationConfig(pad_token_id=pad), None
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def run(prompts: Sequence[Prompt], model: Any, params: Params) -> list[Answer]:
    """Generate batch after batch; every step of a batch yields one token for each of its unfinished requests."""
    import torch

    torch.manual_seed(params.seed)
    fits, answers = admit(prompts, params, model.ncdemo_max_model_len)
    for i in range(0, len(fits), params.concurrency):
        batch = _batch(fits[i : i + params.concurrency], model, params)
        answers += batch
        ended(len(batch))
    return answers


def _batch(prompts: Sequence[Prompt], model: Any, params: Params) -> list[Answer]:
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    config = copy.deepcopy(model.generation_config)
    config.update(max_new_tokens=params.max_new_tokens, do_sample=params.temperature > 0)
    if params.temperature > 0:
        config.temperature = params.temperature
    stop_ids = [] if params.ignore_eos else model.ncdemo_stop_ids
    config.eos_token_id = stop_ids or None
    pad = config.pad_token_id if config.pad_token_id is not None else 0
    config.pad_token_id = pad
    longest = max(len(p.token_ids) for p in prompts)
    ids = torch.tensor([[pad] * (longest - len(p.token_ids)) + list(p.token_ids) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p.token_ids)) + [1] * len(p.token_ids) for p in prompts], device=model.device)
    stamps: list[int] = []

    class Stamp(StoppingCriteria):
        """Called after each step, when its tokens are chosen."""

        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            if input_ids.is_cuda:
                torch.cuda.synchronize()
            stamps.append(time.perf_counter_ns())
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    sent = time.perf_counter_ns()
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=mask, generation_config=config, stopping_criteria=StoppingCriteriaList([Stamp()])
        )
    answers = []
    for prompt, row in zip(prompts, out[:, longest:].tolist(), strict=True):
        ends = [i for i, token in enumerate(row) if token in stop_ids]
        # The end token stops a request and is no output; it costs a step all the same.
        length = ends[0] if ends else len(row)
        answers.append(Answer(prompt.index, sent, sent, stamps[:length], [1] * length, row[:length]))
    return answers
