"""Examples to token ids and loss targets, with the model's own tokenizer and chat template.

Each part of a conversation is tokenised by itself, just as a prompt is at inference, so a target is never split
differently in training than when the model answers. Loss is on assistant turns (with their end token) or on plain text.
"""

from dataclasses import dataclass
from typing import Any

from workloads.data.formats import Example


@dataclass(frozen=True)
class TokenExample:
    """ids: token ids; is_target: for each, whether predicting it carries loss. Equal lengths, at least one target."""

    ids: list[int]
    is_target: list[bool]


def tokenize(example: Example, tokenizer: Any) -> TokenExample:
    """Return ids and targets of one example, not yet cut to any length."""
    ids: list[int] = []
    is_target: list[bool] = []
    for text, target in _parts(example, tokenizer):
        part = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += part
        is_target += [target] * len(part)
    return TokenExample(ids, is_target)


def prompt_text(example: Example, tokenizer: Any) -> tuple[str, str]:
    """Return what the model sees before its last answer, and that answer (the reference)."""
    messages = list(example.messages)
    return _render(messages[:-1], tokenizer, ask=True), messages[-1]["content"]


def cut(example: TokenExample, max_seq_len: int) -> TokenExample | None:
    """Return the first max_seq_len tokens, or None when no target is left in them."""
    short = TokenExample(example.ids[:max_seq_len], example.is_target[:max_seq_len])
    return short if any(short.is_target[1:]) else None


def _parts(example: Example, tokenizer: Any) -> list[tuple[str, bool]]:
    """Split an example into texts that carry loss and texts that don't, in order."""
    eos = tokenizer.eos_token
    if example.text is not None:
        return [(example.text + eos, True)]
    messages, done = list(example.messages), ""
    parts: list[tuple[str, bool]] = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _render(messages[:i], tokenizer, ask=True)
        after = _render(messages[: i + 1], tokenizer, ask=False)
        if not (before.startswith(done) and after.startswith(before)):
            # Some templates rewrite earlier turns; then only the last answer can be trained on as it is asked for.
            parts, done = [], ""
        answer, found, _ = after[len(before) :].rpartition(eos)
        answer = answer + eos if found else after[len(before) :] + eos
        parts += [(before[len(done) :], False), (answer, True)]
        done = before + answer
    return parts


def _render(messages: list[dict[str, str]], tokenizer: Any, *, ask: bool) -> str:
    if tokenizer.chat_template:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))
    text = "".join(f"{m['content']}{tokenizer.eos_token if m['role'] == 'assistant' else chr(10)}" for m in messages)
    return text
