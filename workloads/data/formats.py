"""Rows in the forms that public data sets use, turned into one: a text, or messages with roles.

A row that doesn't fit stops the run with file, row and reason: a guess would train on something nobody looked at.

    examples = load_examples(Path("train.jsonl"))
    train, held_out = split(examples, eval_examples=64, seed=0)
"""

import hashlib
import json
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncdemo.spec import SpecError
from workloads.data.manifest import DATA_SUFFIXES, read_manifest

log = logging.getLogger(__name__)

FORMATS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "instruction": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}
"""Form -> columns it needs; `instruction` takes `input` too. Where several fit, the first: Alpaca has `text` as well."""
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
SPLITS = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test|testing|eval|evaluation"}
"""Split -> the words in a path that say so, as the hub reads them."""


@dataclass(frozen=True)
class Example:
    """One training example: either `text`, or `messages` ({"role": user|assistant|system, "content": str})."""

    messages: tuple[dict[str, str], ...] = ()
    text: str | None = None


def load_examples(source: Path, fmt: str = "auto", split: str = "train") -> list[Example]:
    """Read a file or a downloaded folder and return its examples. Raise SpecError naming the file and the row."""
    examples = []
    for path in _files(source, split):
        rows = _read_file(path)
        found = detect(_columns(rows), rows[:8], str(path)) if fmt == "auto" else fmt
        examples += [to_example(row, found, f"{path}: row {number}") for number, row in enumerate(rows, 1)]
    return examples


def detect(columns: Iterable[str], first_rows: Sequence[dict[str, Any]], where: str = "data") -> str:
    """Return the name of the form that has these columns, with lists in list columns and text in the others."""
    columns = list(columns)
    for name, needed in FORMATS.items():
        kind = list if name in ("messages", "sharegpt") else str
        typed = not first_rows or any(all(isinstance(row.get(column), kind) for column in needed) for row in first_rows)
        if set(needed) <= set(columns) and typed:
            return name
    forms = "; ".join(f"{name} ({', '.join(needed)})" for name, needed in FORMATS.items())
    found = ", ".join(map(str, columns)) or "none"
    raise SpecError(f"{where}: columns {found}: no known form; rename the columns to those of one of these: {forms}")


def to_example(row: Any, fmt: str, where: str = "row") -> Example:
    """Turn one row into an Example; `where` (file and row) opens every message. Raise SpecError where it doesn't fit."""
    if fmt not in FORMATS:
        raise SpecError(f"data.format = {fmt}: not a form; must be one of auto, {', '.join(FORMATS)}")
    if not isinstance(row, dict):
        raise SpecError(f"{where}: is {_kind(row)}; each row must be an object with columns {', '.join(FORMATS[fmt])}")
    for column in FORMATS[fmt]:
        if column not in row:
            have = ", ".join(map(str, row)) or "none"
            raise SpecError(f"{where}: no column {column} (found: {have}); form {fmt} needs it: add it, or set data.format to another form")
    if fmt == "text":
        return Example(text=_text(row["text"], f"{where}: text"))
    if fmt == "prompt_completion":
        return _pair(_text(row["prompt"], f"{where}: prompt"), _text(row["completion"], f"{where}: completion"))
    if fmt == "instruction":
        question = _text(row["instruction"], f"{where}: instruction")
        extra = row.get("input")
        if extra is not None and not (isinstance(extra, str) and not extra.strip()):
            question += "\n\n" + _text(extra, f"{where}: input")
        return _pair(question, _text(row["output"], f"{where}: output"))
    column = FORMATS[fmt][0]
    messages = read_turns(row[column], f"{where}: {column}")
    if not any(message["role"] == "assistant" for message in messages):
        raise SpecError(f"{where}: {column}: no assistant turn, so there is nothing to learn; add one, or remove the row")
    return Example(messages=tuple(messages))


def _pair(question: str, answer: str) -> Example:
    return Example(messages=({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


def read_turns(turns: Any, where: str) -> list[dict[str, str]]:
    """Return turns with role/content or from/value, whichever a data set uses, as role and content. Raise SpecError naming the turn."""
    if not isinstance(turns, list | tuple) or not turns:
        raise SpecError(f"{where}: is {_kind(turns)}; it must be a list of turns with role and content (or from and value)")
    messages = []
    for number, turn in enumerate(turns, 1):
        at = f"{where}: turn {number}"
        if not isinstance(turn, dict):
            raise SpecError(f"{at}: is {_kind(turn)}; it must be an object with role and content (or from and value)")
        role = turn.get("role") if turn.get("role") is not None else turn.get("from")
        if not isinstance(role, str) or role not in ROLES:
            raise SpecError(f"{at}: role {str(role)[:40]!r} is unknown; must be one of {', '.join(ROLES)}: rename it, or remove the row")
        content = turn.get("content") if turn.get("content") is not None else turn.get("value")
        messages.append({"role": ROLES[role], "content": _text(content, f"{at}: content")})
    return messages


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise SpecError(f"{where} is {_kind(value)}; it must be text: correct or remove the row")
    if not value.strip():
        raise SpecError(f"{where} is empty; it must be text: correct or remove the row")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SpecError(f"{where} has half of a surrogate pair, which is no character; correct or remove the row") from None
    return value


def _kind(value: Any) -> str:
    """Say what a value is, in JSON's words."""
    if value is None or value == []:
        return "missing" if value is None else "an empty list"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


# Reading --------------------------------------------------------------------------------------------------------------


def read_rows(source: Path, split: str = "train") -> list[dict[str, Any]]:
    """Return the rows of a .json, .jsonl or .parquet file, or of a downloaded folder's files of this split."""
    return [row for path in _files(source, split) for row in _read_file(path)]


def _files(source: Path, split: str) -> list[Path]:
    """Return the file itself, or a downloaded folder's files of the split; those that name no split are `train`."""
    if not source.exists():
        raise SpecError(f"data.name = {source}: no such file; give a {' '.join(DATA_SUFFIXES)} file or a hub data set id")
    if source.is_file():
        return [source]
    manifest = read_manifest(source)
    if manifest is None:
        raise SpecError(f"{source}: a folder without a valid manifest, so not a whole download; download it again, or name one file")
    named: dict[str, list[str]] = {}
    for file in manifest.files:
        if file.name.endswith(DATA_SUFFIXES):
            named.setdefault(_split_of(file.name), []).append(file.name)
    if split not in named:
        raise SpecError(f"{source}: no file for split {split}; it has {', '.join(sorted(named)) or 'none'}: use one of those")
    suffixes = [Path(name).suffix for name in named[split]]
    # The same rows often lie there in two forms; reading both would count them twice.
    kept = max(sorted(set(suffixes), reverse=True), key=suffixes.count)
    if len(set(suffixes)) > 1:
        log.warning("%s: split %s has %s files; only %s is read", source, split, " and ".join(sorted(set(suffixes))), kept)
    return [source / name for name in sorted(named[split]) if name.endswith(kept)]


def _split_of(name: str) -> str:
    for split, words in SPLITS.items():
        if re.search(rf"(^|[^a-z])({words})([^a-z]|$)", name.lower()):
            return split
    return "train"


def _read_file(path: Path) -> list[dict[str, Any]]:
    readers: dict[str, Callable[[Path], Iterator[Any]]] = {".json": _json, ".jsonl": _lines, ".parquet": _parquet}
    if path.suffix not in readers:
        raise SpecError(
            f"{path}: unknown suffix {path.suffix or '(none)'}; must be one of {', '.join(readers)}: convert or rename the file"
        )
    rows = []
    try:
        for number, row in enumerate(readers[path.suffix](path), 1):
            if not isinstance(row, dict):
                raise SpecError(f"{path}: row {number} is {_kind(row)}; each row must be an object with named columns")
            rows.append(row)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise SpecError(f"{path}: nested too deeply to be rows; write each row as an object a few levels deep") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror or error}); check the file and its permissions") from None
    if not rows:
        raise SpecError(f"{path}: empty file; it must hold at least one row")
    return rows


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise SpecError(f"{path}: not JSON at line {number} ({error.msg}); correct it: each line must be one object") from None


def _json(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        data = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON Lines named .json, which the hub has many of
            yield from _lines(path)
            return
        raise SpecError(f"{path}: not JSON at line {error.lineno} ({error.msg}); correct it there") from None
    rows = data.get("data") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise SpecError(f'{path}: is {_kind(data)}; it must be a list of rows, or {{"data": [rows]}}')
    yield from rows


def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SpecError(f"{path}: pyarrow, which reads .parquet, is not installed; install ncdemo[hf], or use .jsonl") from None
    try:
        yield from parquet.ParquetFile(path).read().to_pylist()
    except pyarrow.ArrowException as error:
        raise SpecError(f"{path}: not a parquet file ({str(error).splitlines()[0]}); write it again, or use .jsonl") from None


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows[:8] for column in row))


# Holding out ----------------------------------------------------------------------------------------------------------


def split(examples: Sequence[Example], eval_examples: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Return (train, held out), decided by content: examples that open with the same question stay on one side.

    The question is the first user message (a text, or a conversation without one: all of it), compared without case and
    white space. The order of the examples has no influence on which are held out; equal seeds agree on every machine.
    """
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(hashlib.sha256(f"{seed}\0{_question(example)}".encode()).hexdigest(), []).append(index)
    held_out: list[int] = []
    for key in sorted(groups):
        if len(held_out) + len(groups[key]) <= eval_examples:
            held_out += groups[key]
    train = sorted(set(range(len(examples))) - set(held_out))
    if len(held_out) < eval_examples or not train:
        have = f"{len(examples)} examples with {len(groups)} different questions"
        raise SpecError(f"data.eval_examples = {eval_examples}: too many to hold out of {have} and still train; lower it, or add data")
    return [examples[index] for index in train], [examples[index] for index in held_out]


def _question(example: Example) -> str:
    users = [message["content"] for message in example.messages if message["role"] == "user"]
    whole = example.text if example.text is not None else "\n".join(message["content"] for message in example.messages)
    return " ".join(unicodedata.normalize("NFKC", users[0] if users else whole).casefold().split())
