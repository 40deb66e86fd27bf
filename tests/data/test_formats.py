"""Rows become examples or a message with file, row and reason; held-out examples share no question with training."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncdemo.spec import SpecError
from ncdemo.spec.train import DataFormat
from workloads.data.formats import FORMATS, Example, detect, load_examples, read_rows, split, to_example
from workloads.data.manifest import DATA_SUFFIXES, Manifest, ManifestFile

QUESTION, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
PAIR = Example(messages=(QUESTION, ANSWER))
SYSTEM = {"role": "system", "content": "S"}

ROWS = [
    ("text", {"text": "hello"}, Example(text="hello")),
    ("prompt_completion", {"prompt": "Q", "completion": "A"}, PAIR),
    ("instruction", {"instruction": "Q", "output": "A"}, PAIR),
    ("instruction", {"instruction": "Q", "input": " ", "output": "A", "text": "Q A"}, PAIR),
    ("instruction", {"instruction": "Q", "input": "I", "output": "A"}, Example(messages=({"role": "user", "content": "Q\n\nI"}, ANSWER))),
    ("messages", {"messages": [SYSTEM, QUESTION, ANSWER], "text": "x"}, Example(messages=(SYSTEM, QUESTION, ANSWER))),
    ("sharegpt", {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, PAIR),
    ("sharegpt", {"conversations": [{"from": "user", "value": "Q"}, {"from": "assistant", "value": "A"}], "id": 1}, PAIR),
    ("sharegpt", {"conversations": [{"role": "user", "content": "Q", "from": None}, {"role": "assistant", "content": "A"}]}, PAIR),
]


@pytest.mark.parametrize(("form", "row", "example"), ROWS)
def test_each_form_is_detected_and_read(form, row, example):
    assert detect(row, [row]) == form
    assert to_example(row, form) == example


def test_forms_are_those_of_the_spec():
    assert {"auto", *FORMATS} == set(DataFormat.__args__)


def test_detection_by_columns_alone_and_past_a_bad_first_row():
    assert detect(["id", "conversations"], []) == "sharegpt"
    assert detect(["messages"], [{"messages": None}, {"messages": [QUESTION, ANSWER]}]) == "messages"
    assert detect(["messages", "text"], [{"messages": "Q A", "text": "Q A"}]) == "text"


@pytest.mark.parametrize("row", [{"question": "Q", "answer": "A"}, {"messages": "Q A"}, {"prompt": "Q"}, {"text": None}, {}])
def test_unknown_form_names_the_columns_and_the_forms(row):
    with pytest.raises(SpecError) as caught:
        detect(row, [row], "train.jsonl")
    message = str(caught.value)
    assert message.startswith(f"train.jsonl: columns {', '.join(row) or 'none'}: no known form; rename the columns")
    assert "sharegpt (conversations); instruction (instruction, output)" in message


@pytest.mark.parametrize(
    ("form", "row", "reason"),
    [
        ("text", ["x"], "is a list; each row must be an object with columns text"),
        ("text", {"txt": "x"}, "no column text (found: txt); form text needs it"),
        ("text", {"text": 3}, "text is a number; it must be text"),
        ("text", {"text": " \n"}, "text is empty; it must be text"),
        ("text", {"text": "a\ud800"}, "text has half of a surrogate pair"),
        ("prompt_completion", {"prompt": "Q", "completion": None}, "completion is missing; it must be text"),
        ("instruction", {"instruction": "Q", "input": 3, "output": "A"}, "input is a number"),
        ("messages", {"messages": []}, "messages: is an empty list; it must be a list of turns"),
        ("messages", {"messages": "Q"}, "messages: is text; it must be a list of turns"),
        ("messages", {"messages": ["Q"]}, "turn 1: is text; it must be an object with role and content"),
        ("messages", {"messages": [QUESTION, {"role": "tool", "content": "x"}]}, "turn 2: role 'tool' is unknown; must be one of user"),
        ("messages", {"messages": [{"content": "x"}]}, "turn 1: role 'None' is unknown"),
        ("messages", {"messages": [{"role": "user"}]}, "turn 1: content is missing"),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "turn 1: content is a list; it must be text"),
        ("messages", {"messages": [QUESTION]}, "no assistant turn, so there is nothing to learn"),
        ("sharegpt", {"conversations": None}, "conversations: is missing"),
    ],
)
def test_row_that_does_not_fit_says_why(form, row, reason):
    with pytest.raises(SpecError) as caught:
        to_example(row, form, "train.jsonl: row 7")
    assert str(caught.value).startswith("train.jsonl: row 7: ")
    assert reason in str(caught.value)


def test_unknown_format_name():
    with pytest.raises(SpecError, match=r"data\.format = alpaca: not a form; must be one of auto, messages, sharegpt"):
        to_example({}, "alpaca")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
TURN = st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), st.sampled_from(["user", "gpt", "system", "", "x"]) | JSON)
COLUMNS = sorted({column for needed in FORMATS.values() for column in needed} | {"input"})
ROW = st.dictionaries(st.sampled_from(COLUMNS), JSON | st.lists(TURN, max_size=3)) | JSON


@given(ROW, st.sampled_from([*FORMATS, "other"]))
def test_any_row_becomes_an_example_or_a_clear_error(row, form):
    try:
        example = to_example(row, form)
    except SpecError:
        return
    assert (example.text is None) != (example.messages == ())
    assert all(set(turn) == {"role", "content"} and turn["content"].strip() for turn in example.messages)
    assert example.text or any(turn["role"] == "assistant" for turn in example.messages)


# Reading --------------------------------------------------------------------------------------------------------------


TWO = [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(TWO)),
        ("a.json", json.dumps({"version": "1", "data": TWO})),
        ("a.json", '{"text": "one"}\n{"text": "two"}\n'),
        ("a.jsonl", '\ufeff{"text": "one"}\n\n{"text": "two"}'),
    ],
)
def test_json_forms_that_are_read(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_rows(tmp_path / name) == TWO
    assert load_examples(tmp_path / name) == [Example(text="one"), Example(text="two")]


def test_parquet_is_read(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the hf extra")
    import pyarrow

    rows = [{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet") == rows
    assert load_examples(tmp_path / "a.parquet") == [PAIR]


def test_every_suffix_that_is_fetched_can_be_read(tmp_path):
    for suffix in DATA_SUFFIXES:
        (tmp_path / f"a{suffix}").write_text("{")
        with pytest.raises(SpecError, match=r"not JSON at line 1|not a parquet file"):
            read_rows(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "not JSON at line 2 (Expecting value); correct it: each line must be one object"),
        ("a.json", b'[\n{"text": }\n]', "not JSON at line 2 (Expecting value)"),
        ("a.json", b'{"text": "x"}\n{"text"', "not JSON at line 2"),
        ("a.json", b'{"rows": []}', 'is an object; it must be a list of rows, or {"data": [rows]}'),
        ("a.json", b"[1]", "row 1 is a number; each row must be an object with named columns"),
        ("a.jsonl", b'{"text": "x"}\n[1]\n', "row 2 is a list"),
        ("a.jsonl", b" \n", "empty file; it must hold at least one row"),
        ("a.json", b"", "empty file"),
        ("a.json", b"[]", "empty file"),
        ("a.jsonl", b"\xff\xfe", "not UTF-8 text (byte 0); save it as UTF-8"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.csv", b"text\nx\n", "unknown suffix .csv; must be one of .json, .jsonl, .parquet"),
        ("noext", b"x", "unknown suffix (none)"),
        ("a.parquet", b"PAR1 no", "not a parquet file"),
    ],
)
def test_each_mistake_in_a_file_has_one_message(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_rows(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert message in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(SpecError, match=r"no such file; give a .json .jsonl .parquet file or a hub data set id"):
        read_rows(tmp_path / "none.jsonl")


def test_bad_row_is_named_with_its_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": ""}\n')
    with pytest.raises(SpecError, match=r"a\.jsonl: row 2: text is empty"):
        load_examples(tmp_path / "a.jsonl")
    with pytest.raises(SpecError, match=r"a\.jsonl: row 1: no column messages \(found: text\)"):
        load_examples(tmp_path / "a.jsonl", "messages")


def _folder(path, files):
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps({"text": name}))
    entries = tuple(ManifestFile(name=name, size=1, sha256="0") for name in files)
    manifest = Manifest(id="a/b", fallback_from=None, requested_revision=None, commit="c", fetched_at="now", files=entries)
    (path / "manifest.json").write_text(manifest.model_dump_json())
    return path


def test_downloaded_folder_is_split_by_file_name(tmp_path):
    shards = ["data/train-00001-of-00002.jsonl", "data/train-00000-of-00002.jsonl", "data/dev.jsonl", "test/latest.jsonl", "README.md"]
    folder = _folder(tmp_path, shards)
    assert [row["text"] for row in read_rows(folder)] == sorted(shards[:2])
    assert [row["text"] for row in read_rows(folder, "validation")] == ["data/dev.jsonl"]
    assert [row["text"] for row in read_rows(folder, "test")] == ["test/latest.jsonl"]


def test_folder_whose_files_name_no_split_is_all_train(tmp_path):
    folder = _folder(tmp_path, ["guanaco.jsonl", "latest.jsonl"])
    assert len(read_rows(folder)) == 2
    with pytest.raises(SpecError, match="no file for split test; it has train: use one of those"):
        read_rows(folder, "test")


@pytest.mark.parametrize("names", [["train.json", "train.jsonl", "more.jsonl"], ["train.json", "train.jsonl"]])
def test_rows_that_lie_there_twice_are_read_once_and_said(tmp_path, caplog, names):
    folder = _folder(tmp_path, names)
    assert [row["text"] for row in read_rows(folder)] == sorted(names[1:])
    assert "split train has .json and .jsonl files; only .jsonl is read" in caplog.text


def test_folder_without_a_manifest_is_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "x"}')
    with pytest.raises(SpecError, match="a folder without a valid manifest, so not a whole download"):
        read_rows(tmp_path)


def test_file_that_the_manifest_has_and_the_folder_lacks(tmp_path):
    (_folder(tmp_path, ["train.jsonl"]) / "train.jsonl").unlink()
    with pytest.raises(SpecError, match=r"train\.jsonl: cannot be read \(No such file or directory\)"):
        read_rows(tmp_path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(SpecError, match=r"pyarrow, which reads .parquet, is not installed; install ncdemo\[hf\], or use .jsonl"):
        read_rows(tmp_path / "a.parquet")


def test_importing_loads_nothing_heavy():
    code = "import sys, workloads.data.formats; print({'torch', 'datasets', 'pyarrow', 'huggingface_hub'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# Holding out ----------------------------------------------------------------------------------------------------------


def _asked(question, answer="A"):
    return Example(messages=({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


@given(
    st.lists(st.sampled_from(["a", "A ", " a", "b", "c\n", "C", "d", "e", "f", "ｆ"]), min_size=1, max_size=30),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_no_question_stands_on_both_sides(questions, eval_examples, seed):
    examples = [_asked(question, str(number)) for number, question in enumerate(questions)]
    try:
        train, held_out = split(examples, eval_examples, seed)
    except SpecError:
        return
    plain = [{example.messages[0]["content"].strip().lower().replace("ｆ", "f") for example in side} for side in (train, held_out)]
    assert not plain[0] & plain[1]
    assert len(held_out) == eval_examples
    assert sorted(example.messages[1]["content"] for example in train + held_out) == sorted(map(str, range(len(questions))))


def test_split_depends_on_content_and_seed_not_on_order():
    examples = [_asked(f"question {number}") for number in range(200)]
    train, held_out = split(examples, 20, seed=0)
    assert split(examples, 20, seed=0) == (train, held_out)
    assert split(examples[::-1], 20, seed=0)[1] == held_out
    assert split(examples, 20, seed=1)[1] != held_out
    assert split(examples, 10, seed=0)[1] == held_out[:10]
    assert train == [example for example in examples if example not in held_out]


def test_texts_and_system_prompts_are_no_way_around_the_split():
    with_system = Example(messages=(SYSTEM, QUESTION, ANSWER))
    train, held_out = split([PAIR, with_system, Example(text="one"), Example(text="ONE ")], 2, seed=0)
    assert {example.text is None for example in train} != {example.text is None for example in held_out}


@pytest.mark.parametrize(("questions", "count"), [(["a", "b"], 2), (["a"], 1), (["a", "a", "a"], 1), ([], 1), ([], 0)])
def test_too_many_held_out_is_refused(questions, count):
    with pytest.raises(SpecError, match=rf"data.eval_examples = {count}: too many to hold out of {len(questions)} examples"):
        split([_asked(question) for question in questions], count, seed=0)
