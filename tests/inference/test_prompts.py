"""Files of prompts, in the forms that chat data sets come in: what is asked, what is left out, and what is said of a broken row."""

import json
from pathlib import Path

import pytest

from ncdemo.spec import BenchSpec, SpecError
from ncdemo.spec.bench import Prompts
from ncdemo.spec.result_bench import PromptRows
from workloads.inference.prompts import load_prompts, prompt_hash

SYSTEM, ASK, SAY, MORE = (
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Name a colour."},
    {"role": "assistant", "content": "Blue."},
    {"role": "user", "content": "Another."},
)
SHAREGPT = [
    {"from": "system", "value": "Be short."},
    {"from": "human", "value": "Name a colour."},
    {"from": "gpt", "value": "Blue."},
    {"from": "human", "value": "Another."},
    {"from": "gpt", "value": "Red."},
]


def written(folder: Path, *rows: object, name: str = "p.jsonl") -> str:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def texts(tokenizer, file: str, count: int, **more) -> list[str]:
    return [tokenizer.decode(p.token_ids) for p in load_prompts(Prompts(file=file, count=count, **more), tokenizer, 1000).prompts]


def rendered(tokenizer, *messages: dict[str, str]) -> str:
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def test_every_form_asks_up_to_the_last_user_turn_with_one_template(tmp_path: Path, tokenizer) -> None:
    rows = (
        {"prompt": "Name a colour."},
        {"messages": [SYSTEM, ASK, SAY, MORE, {"role": "assistant", "content": "Red."}]},
        {"id": "x", "conversations": SHAREGPT},
        {"instruction": "Name a colour.", "input": "", "output": "Blue."},
        {"instruction": "Translate.", "input": "Blau", "output": "Blue."},
        {"messages": [ASK]},
    )
    found = texts(tokenizer, written(tmp_path, *rows), 6)
    once = rendered(tokenizer, ASK)
    history = rendered(tokenizer, SYSTEM, ASK, SAY, MORE)
    assert found == [once, history, history, once, rendered(tokenizer, {"role": "user", "content": "Translate.\n\nBlau"}), once]
    assert "Red." not in found[1]
    assert once.count("Name a colour.") == once.count("<|im_start|>assistant") == 1


def test_a_json_list_and_parquet_hold_the_same(tmp_path: Path, tokenizer) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the hf extra")
    import pyarrow

    rows = [{"id": "a", "conversations": SHAREGPT}, {"id": "b", "conversations": SHAREGPT[1:4]}]
    file = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    lines = texts(tokenizer, written(tmp_path, *rows), 2)
    assert texts(tokenizer, written(tmp_path, json.dumps(rows), name="rows.json"), 2) == lines
    assert texts(tokenizer, str(file), 2) == lines


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("{", "not_json", r"p.jsonl:2: not JSON .*; each line must be one JSON object"),
        ('{"text": "x"}', "no_prompt", r":2: needs 'prompt' \(text\), 'messages'.*found: text"),
        ('{"prompt": ""}', "no_prompt", r":2: needs 'prompt'"),
        ("[1]", "no_prompt", r":2: needs 'prompt'.*found: list"),
        ('{"prompt": "x", "reference": 1}', "bad_reference", r":2: reference must be text, the right answer; correct it or leave it out"),
        ('{"messages": "x"}', "bad_turns", r":2: messages: is text; it must be a list of turns with role and content"),
        ('{"messages": [{"role": "pirate", "content": "x"}]}', "bad_turns", r":2: messages: turn 1: role 'pirate' is unknown.*remove the row"),
        ('{"conversations": [{"from": "human", "value": " "}]}', "bad_turns", r":2: conversations: turn 1: content is empty.*remove the row"),
        ('{"conversations": [{"from": "gpt", "value": "x"}]}', "no_user_turn", r":2: conversations: no user turn.*add one, or remove the row"),
        ('{"prompt": "%s"}' % ("word " * 300), "too_long", r":2: has 3\d\d tokens and max_model_len leaves room for 100; raise max_model_len"),
    ],
)  # fmt: skip
def test_an_unusable_row_is_told_or_counted(tmp_path: Path, tokenizer, content: str, kind: str, message: str) -> None:
    file = written(tmp_path, {"prompt": "fine", "reference": "yes"}, content, {"prompt": "fine too"})
    with pytest.raises(SpecError, match=message):
        load_prompts(Prompts(file=file, count=2), tokenizer, 100)
    loaded = load_prompts(Prompts(file=file, count=3, unusable_rows="skip"), tokenizer, 100)
    assert loaded.rows == PromptRows(read=3, used=2, skipped={kind: 1})
    assert loaded.references == ["yes", None, "yes"]
    assert loaded.prompts[2].token_ids == loaded.prompts[0].token_ids


def test_a_template_that_refuses_a_row_is_that_rows_fault(tmp_path: Path, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}{{ messages[0].content }}"
    monkeypatch.setattr(tokenizer, "chat_template", strict)
    file = written(tmp_path, {"messages": [SYSTEM, ASK]}, {"messages": [ASK]})
    with pytest.raises(SpecError, match=r":1: the model's chat template refuses these messages \(no system turn\); correct their roles"):
        load_prompts(Prompts(file=file), tokenizer, 100)
    assert load_prompts(Prompts(file=file, unusable_rows="skip"), tokenizer, 100).rows.skipped == {"template_refuses": 1}


def test_what_is_not_needed_is_not_read(tmp_path: Path, tokenizer) -> None:
    assert load_prompts(Prompts(file=written(tmp_path, {"prompt": "a"}, "{"), count=1), tokenizer, 100).rows == PromptRows(read=1, used=1)


def test_a_file_without_a_usable_row_says_so(tmp_path: Path, tokenizer) -> None:
    with pytest.raises(SpecError, match=r"is empty; put a JSON object in each line"):
        load_prompts(Prompts(file=written(tmp_path, "")), tokenizer, 100)
    with pytest.raises(SpecError, match=r"no row can be used \(2 not_json\); put a JSON object"):
        load_prompts(Prompts(file=written(tmp_path, "{", "["), unusable_rows="skip"), tokenizer, 100)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(SpecError, match=r"not UTF-8 text \(byte \d+\); save it as UTF-8"):
        load_prompts(Prompts(file=str(tmp_path / "latin.jsonl")), tokenizer, 100)
    with pytest.raises(SpecError, match=r"prompts.file = 'no.jsonl': no such file"):
        load_prompts(Prompts(file="no.jsonl"), tokenizer, 10)


def test_prompts_repeat_to_the_count(tokenizer) -> None:
    shipped = Prompts(file="prompts/chat.jsonl", count=20)
    prompts = load_prompts(shipped, tokenizer, 1000).prompts
    assert len(prompts) == 20
    assert prompts[16].token_ids == prompts[0].token_ids
    assert prompt_hash(prompts) == prompt_hash(load_prompts(shipped, tokenizer, 1000).prompts)


def test_a_prefix_cache_is_a_servers() -> None:
    with pytest.raises(ValueError, match="prefix_cache needs mode: server, as an engine of ours can't be emptied between cells; set it"):
        BenchSpec(prefix_cache=True)


@pytest.mark.parametrize("engines", [("echo",), ("openai", "echo")])
def test_chats_are_for_an_endpoint_of_others_alone(engines: tuple[str, ...]) -> None:
    url = "http://127.0.0.1:1" if "openai" in engines else None
    with pytest.raises(
        ValueError, match="endpoint: chat is for engine openai alone, as the others are given token ids; remove it, or measure"
    ):
        BenchSpec(mode="server", engines=engines, url=url, endpoint="chat")
    assert BenchSpec(mode="server", engines=("openai",), url="http://127.0.0.1:1", endpoint="chat").endpoint == "chat"
