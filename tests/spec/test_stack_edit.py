"""A digest goes into a stack's file: the rest of the file stays, to the byte, comments and layout too."""

import os
from pathlib import Path

import pytest

from ncdemo.spec.base import SpecError
from ncdemo.spec.stack_edit import with_digest, write_digest
from ncdemo.spec.stack_file import load_stack

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
HEAD = "# a comment\nconfig:\n  ncdemo:target: vm # here\n"
CASES = {
    "no images": (HEAD, f"{HEAD[:-1]}\n  ncdemo:images:\n    digests:\n      train: {NEW}\n"),
    "images, a block": (
        f"{HEAD}  ncdemo:images:\n    version: 0.2.0 # ours\n\n  # next\n  ncdemo:location: eastus\n",
        f"{HEAD}  ncdemo:images:\n    version: 0.2.0 # ours\n    digests:\n      train: {NEW}\n\n  # next\n  ncdemo:location: eastus\n",
    ),
    "images, in braces": (
        f"{HEAD}  ncdemo:images: {{version: 0.2.0 }} # ours\n",
        f'{HEAD}  ncdemo:images: {{version: 0.2.0, digests: {{train: "{NEW}"}} }} # ours\n',
    ),
    "another digest, a block": (
        f"{HEAD}  ncdemo:images:\n    digests:\n      vllm: {OLD} # v\n",
        f"{HEAD}  ncdemo:images:\n    digests:\n      vllm: {OLD} # v\n      train: {NEW}\n",
    ),
    "no digests, in braces": (
        f"{HEAD}  ncdemo:images: {{digests: {{}}}}\n",
        f'{HEAD}  ncdemo:images: {{digests: {{train: "{NEW}"}}}}\n',
    ),
    "its digest, replaced": (
        f"{HEAD}  ncdemo:images:\n    digests: {{vllm: '{OLD}', train: '{OLD}'}} # t\n",
        f"{HEAD}  ncdemo:images:\n    digests: {{vllm: '{OLD}', train: {NEW}}} # t\n",
    ),
    "no line end at the end": (f"{HEAD}  ncdemo:location: eastus", f"{HEAD}  ncdemo:location: eastus\n  ncdemo:images:\n    digests:\n      train: {NEW}"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_one_place_changes(case: str, tmp_path: Path) -> None:
    before, after = CASES[case]
    assert with_digest(before, "train", NEW) == after
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(before)
    path.chmod(0o640)
    assert write_digest(path, "train", NEW)
    assert path.read_text() == after
    assert path.stat().st_mode & 0o777 == 0o640
    assert load_stack(path).spec.images.digests["train"] == NEW
    assert not write_digest(path, "train", NEW)
    assert os.listdir(tmp_path) == ["Pulumi.dev.yaml"]


@pytest.mark.parametrize("source", sorted((ROOT / "stacks").glob("Pulumi.*.yaml")), ids=lambda path: path.name)
def test_every_example_stack_takes_digests(source: Path, tmp_path: Path) -> None:
    path = tmp_path / source.name
    text = source.read_text()
    path.write_text(text)
    for name in ("train", "vllm", "train"):
        write_digest(path, name, NEW if name == "train" else OLD)
    added = path.read_text().splitlines()
    assert [line for line in text.splitlines() if line not in added] == []
    assert load_stack(path).spec.images.digests == {"train": NEW, "vllm": OLD}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}  ncdemo:images: {{digests: {{train: {OLD}}}}}\n  ncdemo:pools: 3\n", "pools"),
        (f"{HEAD}  ncdemo:images: &i\n    digests:\n  ncdemo:location: eastus\n", "digests"),
    ],
)
def test_a_file_that_is_wrong_stays_as_it_is(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        write_digest(path, "train", NEW)
    assert path.read_text() == text
    assert os.listdir(tmp_path) == ["Pulumi.dev.yaml"]


def test_where_it_cant_be_written_it_says_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(HEAD)
    (tmp_path / "Pulumi.dev.yaml.new").mkdir()
    with pytest.raises(SpecError, match=rf"could not be written \(.*Is a directory.*\); write it by hand: images\.digests\.train: {NEW}$"):
        write_digest(path, "train", NEW)
    assert path.read_text() == HEAD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}  ncdemo:images:\n", "line 4: ncdemo:images is empty; remove it"),
        ("[1]\n", "line 1: no mapping that could hold config"),
        ("", "the file: no mapping that could hold config"),
    ],
)
def test_what_is_no_mapping_is_named(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        with_digest(text, "train", NEW)
