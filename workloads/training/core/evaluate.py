"""What a model is worth on held-out data, measured alike for every strategy and before and after training.

Loss, perplexity and token accuracy given the true prefix; exact match and field accuracy of its own greedy answers.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
import yaml
from torch.nn.functional import cross_entropy

from ncdemo.spec.result import EvalRecord
from ncdemo.spec.train import Eval
from workloads.data.formats import Example
from workloads.data.packing import pack, pack_rows, pad
from workloads.data.tokens import TokenExample, prompt_text
from workloads.run import progress
from workloads.training.core.attention import PACKED
from workloads.training.core.loss import target_logits


@torch.no_grad()
def evaluate(strategy: Any, tokens: Sequence[TokenExample], asked: Sequence[Example], tokenizer: Any, spec: Eval, max_seq_len: int,
             *, step: int, now: Any) -> EvalRecord:  # fmt: skip
    """Measure the strategy's model; each rank takes its share and the sums are reduced. All ranks must call this."""
    start = time.perf_counter()
    model = strategy.unwrapped()
    model.eval()
    model.set_attn_implementation(PACKED if strategy.packs else "sdpa")
    sums = torch.zeros(6, dtype=torch.float64)  # nll, targets, first choices, answers, exact, field accuracy
    rows = pack_rows([len(t.ids) for t in tokens], range(len(tokens)), max(max_seq_len, 1024))
    for row, counts in share(rows, strategy):
        examples = [tokens[i] for i in row]
        batch = pack(examples) if strategy.packs else pad(examples, tokenizer.pad_token_id)
        with strategy.autocast():
            logits, targets = target_logits(model, batch, strategy.device)
        nll = cross_entropy(logits.float(), targets, reduction="sum")
        if counts:
            sums[:3] += torch.tensor([nll.item(), batch.target_tokens, (logits.argmax(-1) == targets).sum().item()])
    if asked:
        model.set_attn_implementation("sdpa")
        for answer, reference in _answers(strategy, model, asked, tokenizer, spec):
            fields = field_accuracy(answer, reference)
            sums[3:] += torch.tensor([1, answer.strip() == reference.strip(), math.nan if fields is None else fields])
    model.train()
    nll, targets, first, answers, exact, fields = strategy.sum(sums).tolist()
    return EvalRecord(
        step=step,
        end_s=now(),
        loss=nll / targets,
        perplexity=math.exp(min(nll / targets, 700)),
        token_accuracy=first / targets,
        target_tokens=int(targets),
        exact_match=exact / answers if answers else None,
        exact_match_examples=int(answers) if answers else None,
        field_accuracy=fields / answers if answers and not math.isnan(fields) else None,
        eval_time_s=time.perf_counter() - start,
    )


def field_accuracy(answer: str, reference: str) -> float | None:
    """Return right fields / union of fields of two YAML mappings, 0 to 1; None when the reference is no mapping."""
    wanted, got = _fields(reference), _fields(answer)
    if wanted is None:
        return None
    got = got or {}
    return float(sum(key in got and got[key] == value for key, value in wanted.items()) / len(wanted.keys() | got.keys()))


def _fields(text: str) -> dict[str, Any] | None:
    """Flatten a YAML mapping to dotted keys; None when it is none."""
    try:
        root = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    flat: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, child in value.items():
                walk(child, f"{key}.{name}" if key else str(name))
        else:
            flat[key] = value

    walk(root, "")
    return flat if isinstance(root, dict) and root else None


def share(items: Sequence[Any], strategy: Any) -> list[tuple[Any, bool]]:
    """Return this rank's items, each with whether it counts.

    Where weights are spread over ranks all must call the model equally often: a rank that has one item less repeats its last.
    """
    own = [(item, True) for item in items[strategy.rank :: strategy.world_size]]
    if strategy.sharded and items and len(own) < -(-len(items) // strategy.world_size):
        own.append((items[-1], False))
    return own


def _answers(strategy: Any, model: Any, examples: Sequence[Example], tokenizer: Any, spec: Eval) -> Any:
    """Yield (greedy answer, reference) of each example of this rank's; similar lengths are generated together."""
    pairs = sorted((prompt_text(e, tokenizer) for e in examples), key=lambda pair: len(pair[0]))
    batches = share([pairs[i : i + spec.batch_size] for i in range(0, len(pairs), spec.batch_size)], strategy)
    for done, (batch, counts) in enumerate(batches, start=1):
        encoded = tokenizer([p for p, _ in batch], return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
        encoded = encoded.to(strategy.device)
        with strategy.autocast():
            out = model.generate(
                **encoded, max_new_tokens=spec.max_new_tokens, do_sample=False, use_cache=True, synced_gpus=strategy.sharded
            )
        texts = tokenizer.batch_decode(out[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        progress("evaluate", done, len(batches))
        if counts:
            yield from zip(texts, (reference for _, reference in batch), strict=True)
