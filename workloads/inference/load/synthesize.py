"""Prompts of an exact token count in the model's own tokens, seeded and distinct: equal work, and no prefix that a cache knows.

    made = synthesize(tokenizer, [64] * 100, seed=1)      # made[0].text, made[0].prompt.token_ids

They are made of words that are one token each wherever they stand after a space, and every prompt is encoded again to prove it.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.traces import BLOCK_TOKENS, TraceRow
from workloads.inference.frameworks.base import Prompt

WORDS = 2048
"""Enough that two prompts hardly ever begin with the same two words."""
WORD = re.compile(r"[a-z]{2,12}")


@dataclass(frozen=True)
class Synthetic:
    """token_ids are what the text encodes to; for chat the text is the user's message, and the ids are of the whole rendered prompt."""

    prompt: Prompt
    text: str


def synthesize(tokenizer: Any, lengths: Sequence[int], seed: int | str, *, chat: bool = False) -> list[Synthetic]:
    """Return a prompt of exactly lengths[i] tokens for each i. chat: the chat template's own tokens are part of the count."""
    rng = random.Random(seed)
    words = _words(tokenizer, rng)
    made: list[Synthetic] = []
    seen: set[str] = set()
    for i, length in enumerate(lengths):
        for _ in range(20):
            text = _text(tokenizer, words, length, rng, chat)
            if text not in seen:
                break
        else:
            raise SpecError(f"prompt {i}: no further distinct prompt of {length} tokens was found; ask for longer or fewer prompts")
        seen.add(text)
        made.append(Synthetic(Prompt(i, _exact(tokenizer, text, length, i, chat=chat), _as_user(text)), text))
    return made


def synthesize_shared(tokenizer: Any, rows: Sequence[TraceRow], seed: int | str) -> list[Synthetic]:
    """Return a prompt of exactly each row's length; equal block ids are equal tokens, so a prefix cache hits as it did in the trace.

    What has no id is the row's own. Rows with the same ids and length have the same prompt.
    """
    words = _words(tokenizer, random.Random(seed))
    made = []
    for i, row in enumerate(rows):
        own = range(len(row.block_ids), -(-row.prompt_tokens // BLOCK_TOKENS))
        names = [*map(str, row.block_ids), *(f"row {i} block {at}" for at in own)]
        drawn = [word for name in names for word in random.Random(f"{seed}/{name}").choices(words, k=BLOCK_TOKENS)]
        text = " ".join(drawn[: row.prompt_tokens])
        made.append(Synthetic(Prompt(i, _exact(tokenizer, text, row.prompt_tokens, i, chat=False), _as_user(text)), text))
    return made


def _exact(tokenizer: Any, text: str, length: int, i: int, *, chat: bool) -> tuple[int, ...]:
    """Return the ids of a text; raise SpecError when they aren't as many as its words."""
    ids = encode(tokenizer, text, chat)
    if len(ids) != length:
        raise SpecError(f"prompt {i}: the tokenizer makes {len(ids)} tokens of words that are {length}; synthetic prompts need one "
                        "that splits at spaces, so give prompts from a file")  # fmt: skip
    return tuple(ids)


def encode(tokenizer: Any, text: str, chat: bool) -> list[int]:
    """Return the ids of a text, or of the chat prompt that it makes as the user's message."""
    if chat:
        text = tokenizer.apply_chat_template(list(_as_user(text)), tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _as_user(text: str) -> tuple[dict[str, str]]:
    return ({"role": "user", "content": text},)


def _text(tokenizer: Any, words: list[str], length: int, rng: random.Random, chat: bool) -> str:
    """Draw words up to the length; the template's tokens are counted with one word in it."""
    own = len(encode(tokenizer, words[0], chat)) - 1 if chat else 0
    if length <= own:
        raise SpecError(f"prompts: {length} tokens leave no room beside the {own} of the chat template; ask for at least {own + 1}")
    return " ".join(rng.choices(words, k=length - own))


def _words(tokenizer: Any, rng: random.Random) -> list[str]:
    """Return words that are one token at the start of a text and one after a space."""
    ids = list(range(len(tokenizer)))
    rng.shuffle(ids)
    words: dict[str, None] = {}
    for i in ids:
        word = tokenizer.decode([i]).strip()
        if WORD.fullmatch(word) and word not in words:
            alone, behind = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (word, f"{word} {word}"))
            if (alone, behind) == (1, 2):
                words[word] = None
                if len(words) == WORDS:
                    break
    if len(words) < 16:
        raise SpecError(
            f"prompts: the tokenizer has {len(words)} words that are one token; synthetic prompts need 16; give prompts from a file"
        )
    return list(words)
