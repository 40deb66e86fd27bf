"""Synthetic prompts with the embedded model's own tokenizer."""

from typing import Any

import pytest

from ncdemo.spec.base import SpecError
from ncdemo.spec.traces import TraceRow
from workloads.inference.load.synthesize import encode, synthesize, synthesize_shared


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


def shared_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_equal_hash_ids_are_equal_blocks_and_counts_stay_exact(tokenizer: Any) -> None:
    rows = [
        TraceRow(0, 6955, 5, (*range(46, 58), 2353, 2354)),  # 13 whole blocks and a part, as in Mooncake's own trace
        TraceRow(1, 6472, 5, (*range(46, 58), 2366)),
        TraceRow(2, 512, 5, (46,)),
        TraceRow(3, 700, 5, (46, 47)),  # a part of a block that is whole elsewhere
        TraceRow(4, 1500, 5, (46,)),  # the rest has no id
        TraceRow(5, 1500, 5, (46,)),
        TraceRow(6, 600, 5),
        TraceRow(7, 6955, 5, (*range(46, 58), 2353, 2354)),
    ]
    made = [m.prompt.token_ids for m in synthesize_shared(tokenizer, rows, 1)]
    assert [len(ids) for ids in made] == [row.prompt_tokens for row in rows]
    shared = [shared_prefix(made[0], ids) for ids in made]
    assert [n // 512 for n in shared] == [13, 12, 1, 1, 1, 1, 0, 13]
    assert shared[1] < 12 * 512 + 16, "no further block of a prefix cache is shared"
    assert (shared[3], shared[7]) == (700, 6955)
    assert 512 <= shared_prefix(made[4], made[5]) < 512 + 16
    again = [m.prompt.token_ids for m in synthesize_shared(tokenizer, rows, 1)]
    assert again == made != [m.prompt.token_ids for m in synthesize_shared(tokenizer, rows, 2)]


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
