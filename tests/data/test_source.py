"""Where a run's examples come from, and the record of what they really were."""

import json
from pathlib import Path

import pytest

from ncdemo.spec import SpecError
from ncdemo.spec.train import Data
from workloads.data import source
from workloads.data.source import load_dataset


def alpaca(path: Path, count: int) -> Path:
    rows = [{"instruction": f"Say {i}", "input": "", "output": str(i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_is_split_by_content_and_recorded(tmp_path: Path) -> None:
    data = Data(name=str(alpaca(tmp_path / "a.jsonl", 40)), eval_examples=8, train_examples=20)
    got = load_dataset(data)
    assert (len(got.train), len(got.held_out)) == (20, 8)
    asked = [{e.messages[0]["content"] for e in side} for side in (got.train, got.held_out)]
    assert not asked[0] & asked[1]
    assert (got.record["train_examples"], got.record["held_out_examples"], got.record["fallback_from"]) == (20, 8, None)
    assert load_dataset(data).record == got.record


def test_changed_content_changes_the_recorded_hash(tmp_path: Path) -> None:
    first = load_dataset(Data(name=str(alpaca(tmp_path / "a.jsonl", 40)), eval_examples=8)).record["content_sha256"]
    second = load_dataset(Data(name=str(alpaca(tmp_path / "a.jsonl", 41)), eval_examples=8)).record["content_sha256"]
    assert first != second


def test_the_fallback_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workloads.data.download_dataset import Downloaded

    file = alpaca(tmp_path / "a.jsonl", 30)
    got = Downloaded(folder=file, id="other/one", commit="c0ffee", fallback_from="asked/for", files=("a.jsonl",))
    monkeypatch.setattr(source, "download_dataset", lambda name, revision: got)
    record = load_dataset(Data(name="asked/for", eval_examples=4)).record
    assert (record["name"], record["fallback_from"], record["revision"]) == ("other/one", "asked/for", "c0ffee")


@pytest.mark.parametrize("name", ["missing.jsonl", "./missing", "/no/where", "noslash", "a/b/c"])
def test_what_is_neither_file_nor_hub_id_is_one_clear_line(name: str) -> None:
    with pytest.raises(SpecError, match=r"data\.name = .*: no such file; give a \.json, \.jsonl, \.parquet file, a hub id"):
        load_dataset(Data(name=name))


def test_too_few_distinct_rows_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "same.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n' * 10)
    with pytest.raises(SpecError, match=r"data\.eval_examples = 4: too many to hold out of 10 examples with 1 different questions"):
        load_dataset(Data(name=str(file), eval_examples=4))
