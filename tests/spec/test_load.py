"""Files that can't be a spec, files that can, and the messages of the real specs' own validators."""

from pathlib import Path

import pytest

from ncdemo.spec import BenchSpec, Spec, SpecError, TrainSpec, load_spec, parse_spec
from ncdemo.spec.read import MAX_BYTES

CONTENTS = [
    (b"", "{f}: is empty; write at least 'kind: train', which takes every default"),
    (b"\xef\xbb\xbf \n", "{f}: is empty; write at least 'kind: train', which takes every default"),
    (b"name: a\nname: \xff\n", "{f}:2: not UTF-8 text (byte 14); save the file as UTF-8"),
    ("name: a".encode("utf-16"), "{f}:1: not UTF-8 text (byte 0); save the file as UTF-8"),
    (b"\x7fELF\x02\x01\x01\x00", "{f}:1: character '\\x7f' is not allowed; remove it, and save the spec as UTF-8"),
    (b"#" * (MAX_BYTES + 1), f"{{f}}: larger than {MAX_BYTES} bytes; give the spec itself, which is a few kilobytes"),
    (b"\xef\xbb\xbfname: a\nseeds: 1\n", "{f}:2: seeds = 1: unknown key; remove it. Allowed here: {keys}"),
]


def _message(path: str | Path, model: type[Spec] = TrainSpec) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(path, model)
    return str(caught.value)


@pytest.mark.parametrize(("content", "message"), CONTENTS, ids=lambda value: repr(value)[:30])
def test_content_that_is_no_spec(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    assert _message(path) == message.format(f=path, keys=", ".join(sorted(TrainSpec.model_fields)))


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("kind: train")
    assert _message(tmp_path) == f"{tmp_path}: is a folder; give the path of a YAML file in it"
    near = f"{tmp_path}/demos.yaml: no such file; give the path of a YAML spec; did you mean {tmp_path}/demo.yaml?"
    assert _message(tmp_path / "demos.yaml") == near
    assert _message("/nowhere/x.yaml") == "/nowhere/x.yaml: no such file; give the path of a YAML spec"
    beyond = tmp_path / "demo.yaml" / "x"
    assert _message(beyond) == f"{beyond}: cannot be read (Not a directory); check the path and its permissions"
    assert _message("a\0b") == "'a\\x00b': cannot be read (embedded null byte); check the path and its permissions"
    assert _message("two\nlines") == "'two\\nlines': no such file; give the path of a YAML spec"
    assert _message("/dev/zero") == f"/dev/zero: larger than {MAX_BYTES} bytes; give the spec itself, which is a few kilobytes"


def test_what_people_write_and_we_take(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(
        b"\xef\xbb\xbf%YAML 1.1\n--- # windows\r\nname: &n a\r\nmodel: {name: *n, revision: 2024-01-01}\r\ndata: {packing: no}\r\n...\n"
    )
    spec = load_spec(path, TrainSpec, ["train.max_steps=0x10", "train.weight_decay=1", "data.name='010'", "model.revision="])
    assert (spec.name, spec.model.name, spec.model.revision, spec.data.packing) == ("a", "a", None, False)
    assert (spec.train.max_steps, spec.train.weight_decay, spec.data.name) == (16, 1.0, "010")
    assert load_spec(path, TrainSpec).model.revision == "2024-01-01"


def test_no_text_takes_every_default() -> None:
    assert parse_spec("", TrainSpec) == parse_spec("# nothing yet", TrainSpec) == TrainSpec()
    assert parse_spec("train:", TrainSpec, ["train.max_steps=3", "train.max_steps=4"]).train.max_steps == 4


VALIDATORS = [
    (TrainSpec, "train:\n  lora: {r: 8}", "f:2: train.lora = {'r': 8}: lora settings have no effect with method: full; "
     "set train.method to lora or remove them"),
    (BenchSpec, "sampling:\n  max_new_tokens: 4096", "f:2: sampling.max_new_tokens = 4096: leaves no room for a "
     "prompt in max_model_len; lower one or raise the other"),
    (BenchSpec, "max_model_len: 32", "f:1: max_model_len = 32: sampling.max_new_tokens leaves no room for a prompt in max_model_len; "
     "lower one or raise the other"),
    (BenchSpec, "concurrency: [1, 2, 1]", "f:1: concurrency = [1, 2, 1]: names a value twice; list each once"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "text", "message"), VALIDATORS)
def test_a_validator_names_the_key_that_the_user_wrote(model: type[Spec], text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, model, source="f")
    assert str(caught.value) == message
