"""Synthetic prompts with the embedded model's own tokenizer."""

from typing import Any

import pytest

from ncdemo.spec.base import SpecError
from workloads.inference.load.synthesize import encode, synthesize


@pytest.mark.parametrize("chat", [False, True])
def test_counts_are_exact_and_texts_distinct(tokenizer: Any, chat: bool) -> None:
    lengths = [40, 64, 127, 128, 129, 1000, 7000, *range(41, 60)]
    made = synthesize(tokenizer, lengths, 1, chat=chat)
    assert [len(m.prompt.token_ids) for m in made] == lengths
    assert [len(encode(tokenizer, m.text, chat)) for m in made] == lengths
    assert len({m.prompt.token_ids[-36:] for m in made}) == len(made)


def test_ids_decode_to_the_text_and_back(tokenizer: Any) -> None:
    (made,) = synthesize(tokenizer, [300], 2)
    assert tokenizer.decode(made.prompt.token_ids) == made.text


def test_a_seed_is_a_set_of_prompts(tokenizer: Any) -> None:
    assert synthesize(tokenizer, [20, 20], 1) == synthesize(tokenizer, [20, 20], 1) != synthesize(tokenizer, [20, 20], 2)


def test_prefixes_differ(tokenizer: Any) -> None:
    """A prefix cache works in blocks of at least 16 tokens: none of them may be shared."""
    made = synthesize(tokenizer, [64] * 500, 3)
    assert len({m.prompt.token_ids[:16] for m in made}) == 500


def test_refuses_what_cannot_be(tokenizer: Any) -> None:
    with pytest.raises(SpecError, match="leave no room beside the"):
        synthesize(tokenizer, [5], 1, chat=True)
    with pytest.raises(SpecError, match="no further distinct prompt of 1 tokens"):
        synthesize(tokenizer, [1] * 5000, 1)


class Characters:
    """A tokenizer that splits every letter: no word is one token."""

    def __len__(self) -> int:
        return 100

    def decode(self, ids: list[int]) -> str:
        return chr(97 + ids[0] % 26)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}


def test_refuses_a_tokenizer_without_words() -> None:
    with pytest.raises(SpecError, match="0 words that are one token"):
        synthesize(Characters(), [5], 1)
