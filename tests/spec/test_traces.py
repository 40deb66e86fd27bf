"""Readers of recorded traffic: the three forms, the real Azure samples where they are, and what can't be read."""

import gzip
import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from ncdemo.spec.base import SpecError
from ncdemo.spec.traces import TraceRow, fitting, read_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319601,3180,8\n"
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,GPT-4,9,0,9,API log
50,GPT-4,7,3,10,API log
"""
MOONCAKE = """\
{"timestamp": 1000, "input_length": 6755, "output_length": 500, "hash_ids": [0, 1]}

{"timestamp": 3052, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]}
"""
SHARED = Path(__file__).resolve().parents[3] / "shared" / "traces"


def _write(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_text(text)
    return path


def test_azure_keeps_all_digits_of_a_time(tmp_path: Path) -> None:
    first, second = read_trace(_write(tmp_path, AZURE))
    assert (first, second.prompt_tokens, second.output_tokens) == (TraceRow(0.0, 4808, 10), 3180, 8)
    assert second.offset_s == pytest.approx(0.0520001, abs=3e-7)


def test_azure_of_2024_has_a_zone_and_may_be_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n"
    path.write_bytes(gzip.compress(text.encode()))
    assert [round(row.offset_s, 5) for row in read_trace(path)] == [0, 0.99007]


def test_burstgpt_leaves_failed_requests_out(tmp_path: Path) -> None:
    assert read_trace(_write(tmp_path, BURSTGPT)) == [TraceRow(0, 472, 18), TraceRow(45, 7, 3)]


def test_mooncake_counts_milliseconds(tmp_path: Path) -> None:
    assert read_trace(_write(tmp_path, MOONCAKE)) == [TraceRow(0, 6755, 500, (0, 1)), TraceRow(2.052, 7322, 490, (0, 14))]
    assert len(read_trace(_write(tmp_path, MOONCAKE), limit=1)) == 1


def test_rows_are_sorted_and_may_be_fitted(tmp_path: Path) -> None:
    rows = read_trace(_write(tmp_path, "Timestamp,Request tokens,Response tokens\n9,5,5\n2,50,5\n"))
    assert [row.offset_s for row in rows] == [0, 7]
    assert fitting(rows, 54) == [TraceRow(7, 5, 5)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "none of the known forms"),
        ("a,b,c\n1,2,3\n", "none of the known forms; give one of: azure: TIMESTAMP"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no request"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", r"trace:2: no azure row .*yesterday"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,1\n", r"trace:2: no azure row"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,0,2\n", "0 prompt and 2 output tokens"),
        ('{"timestamp": 0, "input_length": 5}\n', "must have timestamp, input_length and output_length"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 2}\n{"time\n', "trace:2: not JSON"),
        (
            '{"timestamp": 0, "input_length": 513, "output_length": 2, "hash_ids": [1, 2, 3]}',
            "trace:1: 3 hash_ids for 513 .* 2 blocks of 512",
        ),
        ('{"timestamp": 0, "input_length": 5, "output_length": 2, "hash_ids": 7}', "trace:1: no mooncake row .*not iterable"),
    ],
)
def test_says_what_cannot_be_read(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        read_trace(_write(tmp_path, text))


@pytest.mark.parametrize("content", [None, b"\x1f\x8b\x08\x00torn", b"\xff\xfe\x00"])
def test_no_file_or_no_text(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "t").write_bytes(content)
    with pytest.raises(SpecError, match="cannot be read"):
        read_trace(tmp_path / "t")


@pytest.mark.parametrize(("name", "count", "prompt", "output", "cv"), [("conv", 19366, 1155, 211, 1.09), ("code", 8819, 2048, 28, 13.2)])
def test_the_azure_traces_themselves(name: str, count: int, prompt: int, output: int, cv: float) -> None:
    path = SHARED / f"AzureLLMInferenceTrace_{name}.csv.gz"
    if not path.is_file():
        pytest.skip(f"no sample at {path}: the traces are not part of the checkout")
    rows = read_trace(path)
    gaps = [b.offset_s - a.offset_s for a, b in pairwise(rows)]
    assert len(rows) == count
    assert round(statistics.fmean(row.prompt_tokens for row in rows)) == prompt
    assert round(statistics.fmean(row.output_tokens for row in rows)) == output
    assert statistics.stdev(gaps) / statistics.fmean(gaps) == pytest.approx(cv, rel=0.01)
