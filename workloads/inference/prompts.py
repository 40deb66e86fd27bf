"""Prompts to token ids, once, so that every engine is given the very same ones."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import Prompts
from ncdemo.spec.paths import PACKAGE
from workloads.inference.frameworks.base import Prompt


class PromptTooLong(SpecError):
    """A prompt and its answer don't fit in max_model_len with this model's tokenizer."""


def load_prompts(spec: Prompts, tokenizer: Any, max_prompt_tokens: int) -> list[Prompt]:
    """Return spec.count prompts as token ids. Raise SpecError for a file, line or length that can't be used."""
    texts = [_text(row, where, tokenizer) for where, row in _rows(spec)]
    prompts = []
    for i in range(spec.count):
        ids = tuple(tokenizer(texts[i % len(texts)], add_special_tokens=False)["input_ids"])
        if len(ids) > max_prompt_tokens:
            raise PromptTooLong(
                f"{spec.file}: prompt {i % len(texts) + 1} has {len(ids)} tokens and max_model_len leaves room for {max_prompt_tokens}; raise max_model_len"
            )
        prompts.append(Prompt(i, ids))
    return prompts


def load_references(spec: Prompts) -> list[str | None]:
    """Return the right answer to each of spec.count prompts; None where the file gives none."""
    references = [row.get("reference") for _, row in _rows(spec)]
    return [references[i % len(references)] for i in range(spec.count)]


def prompt_hash(prompts: Sequence[Prompt]) -> str:
    """Return the sha256 of all token ids: equal for equal work."""
    return hashlib.sha256(json.dumps([p.token_ids for p in prompts]).encode()).hexdigest()


def _rows(spec: Prompts) -> list[tuple[str, dict[str, Any]]]:
    """Return each line with its place."""
    path = next((p for p in (Path(spec.file), PACKAGE / spec.file) if p.is_file()), None)
    if path is None:
        raise SpecError(f"prompts.file = {spec.file!r}: no such file; give a JSON Lines file with prompt or messages in each line")
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    rows = [(f"{spec.file}:{n}", _row(line, f"{spec.file}:{n}")) for n, line in lines if line.strip()]
    if not rows:
        raise SpecError(f"prompts.file = {spec.file!r}: is empty; put a JSON object with prompt or messages in each line")
    return rows


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise SpecError(f"{where}: not JSON ({error.msg}); each line must be one JSON object") from None
    asks = isinstance(row, dict) and (
        (isinstance(row.get("prompt"), str) and row["prompt"]) or (isinstance(row.get("messages"), list) and row["messages"])
    )
    if not asks:
        found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise SpecError(f"{where}: needs 'prompt' (text) or 'messages' (a list of role and content); found: {found}")
    if not isinstance(row.get("reference"), str | None):
        raise SpecError(f"{where}: reference must be text, the right answer; correct it or leave it out")
    checked: dict[str, Any] = row
    return checked


def _text(row: dict[str, Any], where: str, tokenizer: Any) -> str:
    messages = [{"role": "user", "content": row["prompt"]}] if row.get("prompt") else row["messages"]
    if not tokenizer.chat_template:
        return "\n".join(str(m["content"]) for m in messages)
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template may raise anything: it is code that the model's author wrote
        raise SpecError(f"{where}: the model's chat template refuses these messages ({error}); correct their roles") from None
