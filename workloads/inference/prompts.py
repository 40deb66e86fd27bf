"""Prompts to token ids, once, so that every engine is given the very same ones.

The chat template is applied here, once, and engines get token ids: no server applies its own a second time. Rows are read in the
file's order until there are enough; those after the last one used are not looked at.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import Prompts
from ncdemo.spec.paths import PACKAGE
from ncdemo.spec.result_bench import PromptRows
from workloads.data.formats import read_rows, read_turns
from workloads.inference.frameworks.base import Prompt

FORMS = "'prompt' (text), 'messages' (a list of role and content), 'conversations' (a list of from and value) or 'instruction' (text)"


class UnusableRow(SpecError):
    """A row that can't be a prompt; `kind` is what it is counted under when such rows are skipped."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class PromptTooLong(UnusableRow):
    """A prompt and its answer don't fit in max_model_len with this model's tokenizer."""


@dataclass(frozen=True)
class Loaded:
    """Prompts and, where their rows give one, the right answers; spec.count of each."""

    prompts: list[Prompt]
    references: list[str | None]
    rows: PromptRows


def load_prompts(spec: Prompts, tokenizer: Any, max_prompt_tokens: int) -> Loaded:
    """Return spec.count prompts as token ids. Raise SpecError for a file, line or length that can't be used."""
    found: list[tuple[Prompt, str | None]] = []
    read, skipped = 0, Counter[str]()
    for where, row in _rows(spec.file):
        read += 1
        try:
            found.append(_prompt(row, where, tokenizer, max_prompt_tokens))
        except UnusableRow as error:
            if spec.unusable_rows == "stop":
                raise
            skipped[error.kind] += 1
        if len(found) == spec.count:
            break
    if not found:
        why = ", ".join(f"{count} {kind}" for kind, count in skipped.items())
        fault = f"no row can be used ({why})" if why else "is empty"
        raise SpecError(f"prompts.file = {spec.file!r}: {fault}; put a JSON object in each line with {FORMS}")
    repeated = [found[i % len(found)] for i in range(spec.count)]
    rows = PromptRows(read=read, used=len(found), skipped=dict(skipped))
    return Loaded([replace(prompt, index=i) for i, (prompt, _) in enumerate(repeated)], [reference for _, reference in repeated], rows)


def prompt_hash(prompts: Sequence[Prompt]) -> str:
    """Return the sha256 of all token ids: equal for equal work."""
    return hashlib.sha256(json.dumps([p.token_ids for p in prompts]).encode()).hexdigest()


def _rows(name: str) -> Iterator[tuple[str, Any]]:
    """Yield each row with its place: a line of JSON Lines as it stands, what other files hold as it was read."""
    path = next((p for p in (Path(name), PACKAGE / name) if p.exists()), None)
    if path is None:
        raise SpecError(f"prompts.file = {name!r}: no such file; give a JSON Lines file with prompt or messages in each line")
    if path.suffix != ".jsonl":
        yield from ((f"{name}: row {number}", row) for number, row in enumerate(read_rows(path), 1))
        return
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            yield from ((f"{name}:{number}", line) for number, line in enumerate(file, 1) if line.strip())
    except UnicodeDecodeError as error:
        raise SpecError(f"prompts.file = {name!r}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def _prompt(row: Any, where: str, tokenizer: Any, max_prompt_tokens: int) -> tuple[Prompt, str | None]:
    """Return a row's prompt, whose index isn't known yet, and its right answer."""
    if isinstance(row, str):
        try:
            row = json.loads(row)
        except json.JSONDecodeError as error:
            raise UnusableRow("not_json", f"{where}: not JSON ({error.msg}); each line must be one JSON object") from None
    messages = _messages(row, where)
    if not isinstance(row.get("reference"), str | None):
        raise UnusableRow("bad_reference", f"{where}: reference must be text, the right answer; correct it or leave it out")
    ids = tuple(tokenizer(_text(messages, where, tokenizer), add_special_tokens=False)["input_ids"])
    if len(ids) > max_prompt_tokens:
        raise PromptTooLong(
            "too_long",
            f"{where}: has {len(ids)} tokens and max_model_len leaves room for {max_prompt_tokens}; raise max_model_len, "
            "or set prompts.unusable_rows: skip",
        )
    return Prompt(0, ids, tuple(messages)), row.get("reference")


def _messages(row: Any, where: str) -> list[dict[str, str]]:
    """Return what a row asks: its conversation up to the last user turn, since what follows would be the answer."""
    known = row if isinstance(row, dict) else {}
    if isinstance(known.get("prompt"), str) and known["prompt"]:
        return [{"role": "user", "content": known["prompt"]}]
    for key in ("messages", "conversations"):
        if known.get(key):
            return _history(known[key], f"{where}: {key}")
    texts = [known.get("instruction"), known.get("input") or ""]
    if texts[0] and all(isinstance(text, str) for text in texts):
        return [{"role": "user", "content": "\n\n".join(filter(None, texts))}]
    found = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
    raise UnusableRow("no_prompt", f"{where}: needs {FORMS}; found: {found}")


def _history(turns: Any, where: str) -> list[dict[str, str]]:
    try:
        messages = read_turns(turns, where)
    except SpecError as error:
        raise UnusableRow("bad_turns", str(error)) from None
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        raise UnusableRow("no_user_turn", f"{where}: no user turn, so there is nothing to answer; add one, or remove the row")
    return messages[: last + 1]


def _text(messages: list[dict[str, str]], where: str, tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        return "\n".join(m["content"] for m in messages)
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template may raise anything: it is code that the model's author wrote
        raise UnusableRow(
            "template_refuses", f"{where}: the model's chat template refuses these messages ({error}); correct their roles"
        ) from None
