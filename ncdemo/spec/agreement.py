"""How much of two answers to one prompt is the same: one definition, for engines of a run and for two runs.

same_start([1, 2, 3, 4], [1, 2, 9, 4])      # 0.5
"""

from collections.abc import Sequence

AGREEMENT_TOKENS = 32
"""Only so many of an answer's first tokens are judged. In bf16 two right engines part at some token for a rounding's sake, and nothing
after it is alike: over whole long answers that would cost more the longer they are, a wrong engine parts at once. Our choice."""


def same_start(ours: Sequence[int | str], theirs: Sequence[int | str]) -> float:
    """Return the share of leading tokens that both answers have alike, of the first AGREEMENT_TOKENS of the longer one; 0 to 1."""
    a, b = ours[:AGREEMENT_TOKENS], theirs[:AGREEMENT_TOKENS]
    longest, shortest = max(len(a), len(b)), min(len(a), len(b))
    same = next((i for i in range(shortest) if a[i] != b[i]), shortest)
    return same / longest if longest else 1.0
