"""Recorded traffic to (offset, prompt tokens, output tokens): the Azure, BurstGPT and Mooncake forms, plain or gzipped.

    rows = read_trace(Path("AzureLLMInferenceTrace_conv.csv.gz"), limit=1000)

Azure: github.com/Azure/AzurePublicDataset (CC-BY-4.0; Patel et al., Splitwise, ISCA 2024). BurstGPT: Wang et al., 2024; its rows
without response tokens are requests that failed, and are left out. Mooncake: Qin et al., FAST 2025; times in milliseconds, and
hash_ids, one for each block of 512 prompt tokens begun: equal ids are equal tokens behind equal tokens.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.paths import PACKAGE

BLOCK_TOKENS = 512
"""Prompt tokens that one of Mooncake's hash_ids stands for."""


@dataclass(frozen=True)
class TraceRow:
    offset_s: float
    """Since the trace's first request."""
    prompt_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...] = ()
    """Of each block of BLOCK_TOKENS prompt tokens, the last one perhaps not full; none where the form has none."""


# form -> the fields of time, prompt tokens and output tokens, and the seconds of a time as it is written
FORMS: dict[str, tuple[tuple[str, str, str], Callable[[Any], float]]] = {
    "azure": (("TIMESTAMP", "ContextTokens", "GeneratedTokens"), lambda text: _utc_s(text)),
    "burstgpt": (("Timestamp", "Request tokens", "Response tokens"), float),
    "mooncake": (("timestamp", "input_length", "output_length"), lambda ms: float(ms) / 1000),
}


def read_trace(path: Path, limit: int | None = None) -> list[TraceRow]:
    """Return a trace's first `limit` requests in the order of time. Raise SpecError, with file and line, for what can't be read."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SpecError(f"trace {path}: cannot be read ({error}); give a CSV or JSON Lines file, plain or gzipped") from None
    form, lines = _form(path, text)
    (when, prompt, output), seconds = FORMS[form]
    rows = []
    for number, line in lines:
        try:
            row = (seconds(line[when]), int(line[prompt]), int(line[output]), tuple(map(int, line.get("hash_ids") or ())))
        except (KeyError, ValueError, TypeError) as error:
            raise SpecError(f"{path}:{number}: no {form} row ({error!r}); it must have {when}, {prompt} and {output}") from None
        if form == "burstgpt" and row[2] == 0:
            continue
        if row[1] < 1 or row[2] < 1:
            raise SpecError(
                f"{path}:{number}: {row[1]} prompt and {row[2]} output tokens; remove the row: a request must have at least one of each"
            )
        if len(row[3]) > (blocks := -(-row[1] // BLOCK_TOKENS)):
            raise SpecError(
                f"{path}:{number}: {len(row[3])} hash_ids for {row[1]} prompt tokens, which have {blocks} blocks of {BLOCK_TOKENS}; "
                "correct or remove the row"
            )
        rows.append(row)
    rows.sort(key=lambda row: row[0])
    if not rows:
        raise SpecError(f"trace {path}: holds no request; give a trace with at least one row")
    return [TraceRow(at - rows[0][0], asked, answered, blocks) for at, asked, answered, blocks in islice(rows, limit)]


def fitting(rows: Sequence[TraceRow], max_model_len: int) -> list[TraceRow]:
    """Return the rows whose prompt and output fit a model; how many were left out is the caller's to say."""
    return [row for row in rows if row.prompt_tokens + row.output_tokens <= max_model_len]


def replayed(file: str, max_model_len: int, count: int) -> tuple[list[TraceRow], list[TraceRow]]:
    """Return the rows of trace.file that a benchmark sends, at least one, and all that the trace has. Raise SpecError without any."""
    path = next((p for p in (Path(file), PACKAGE / file) if p.is_file()), None)
    if path is None:
        raise SpecError(f"trace.file = {file!r}: no such file; give a trace in CSV or JSON Lines")
    whole = read_trace(path)
    rows = fitting(whole, max_model_len)[:count]
    if not rows:
        raise SpecError(f"trace.file = {file!r}: no request fits in max_model_len = {max_model_len}; raise it")
    return rows, whole


def _form(path: Path, text: str) -> tuple[str, Iterable[tuple[int, dict[str, Any]]]]:
    """Tell a trace's form by its first line; return it with numbered rows."""
    head = text.partition("\n")[0].strip()
    if head.startswith("{"):
        return "mooncake", _json_rows(path, text)
    names = {name.strip() for name in head.split(",")}
    for form in ("azure", "burstgpt"):
        if names >= set(FORMS[form][0]):
            return form, enumerate(csv.DictReader(io.StringIO(text)), 2)
    known = "; ".join(f"{form}: {', '.join(fields)}" for form, (fields, _) in FORMS.items())
    raise SpecError(f"trace {path}: begins with {head[:80]!r}, which is none of the known forms; give one of: {known}")


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise SpecError(f"{path}:{number}: not JSON ({error}); correct it: each line must be one object") from None


def _utc_s(text: str) -> float:
    """Seconds of a time like 2023-11-16 18:17:03.9799600, which has more digits than datetime keeps: they are added apart."""
    when = datetime.fromisoformat(text)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    fraction = text.partition(".")[2].partition("+")[0].partition("Z")[0]
    return when.replace(microsecond=0).timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
