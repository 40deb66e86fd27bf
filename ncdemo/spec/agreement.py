"""Who answered like whom, and who answered worse: one definition, for engines of a run and for two runs.

same_start([1, 2, 3, 4], [1, 2, 9, 4])      # 0.5
judged(cells, reference="vllm")             # cells with token_agreement and exact_match_best
"""

from collections.abc import Iterable, Sequence

from ncdemo.spec.result_bench import Cell
from ncdemo.spec.shares import apart

AGREEMENT_TOKENS = 32
"""Only so many of an answer's first tokens are judged. In bf16 two right engines part at some token for a rounding's sake, and nothing
after it is alike: over whole long answers that would cost more the longer they are, a wrong engine parts at once. Our choice."""


def same_start(ours: Sequence[int | str], theirs: Sequence[int | str]) -> float:
    """Return the share of leading tokens that both answers have alike, of the first AGREEMENT_TOKENS of the longer one; 0 to 1."""
    a, b = ours[:AGREEMENT_TOKENS], theirs[:AGREEMENT_TOKENS]
    longest, shortest = max(len(a), len(b)), min(len(a), len(b))
    same = next((i for i in range(shortest) if a[i] != b[i]), shortest)
    return same / longest if longest else 1.0


def judged(cells: Iterable[Cell], reference: str | None = None) -> list[Cell]:
    """Return the cells with what only all of one model, load and repeat can say: agreement with the others, and who answered worse.

    `reference`: the engine whose answers are right, where the spec names one. Cells of an older version keep what they have.
    """
    found = list(cells)
    groups: dict[tuple[str, str, int], list[int]] = {}
    for at, cell in enumerate(found):
        groups.setdefault((cell.model, cell.load, cell.repeat), []).append(at)
    for places in groups.values():
        group = [found[at] for at in places]
        for at, cell in zip(places, group, strict=True):
            found[at] = cell.model_copy(update=_agreed(cell, group, reference) | {"exact_match_best": _better(cell, group)})
    return found


def _agreed(cell: Cell, group: Sequence[Cell], reference: str | None) -> dict[str, object]:
    """Return the agreement with the reference or, without one, the highest that so many others reach as make a majority with this one.

    With two engines each is judged by the other: nothing says which of them is wrong. So it is where the reference has no answers.
    """
    if cell.agreements is None:
        return {}
    pairs = [(share, other) for other in group if other is not cell and (share := _between(cell, other)) is not None]
    right = [pair for pair in pairs if pair[1].engine == reference]
    named = reference is not None and (bool(right) or cell.engine == reference)
    if named:  # its own variant, else the first
        pairs = sorted(right, key=lambda pair: pair[1].variant != cell.variant)[:1] if cell.engine != reference else []
    else:  # another number format alone parts answers
        alike = [pair for pair in pairs if _precision(pair[1]) == _precision(cell)]
        pairs = sorted(alike, key=lambda pair: -pair[0])[: (len(alike) + 1) // 2]
    share, other = pairs[-1] if pairs else (None, None)
    return {
        "token_agreement": share,
        "agreement_with": other.subject if other else None,
        "agreement_by": None if other is None else "reference" if named else "others",
    }


def _precision(cell: Cell) -> str | None:
    return cell.gates.precision if cell.gates else None


def _between(a: Cell, b: Cell) -> float | None:
    """Return what was noted by the later one of two."""
    return (b.agreements or {}).get(a.subject, (a.agreements or {}).get(b.subject))


def _better(cell: Cell, group: Sequence[Cell]) -> float | None:
    """Return the best share of right answers of another, if this cell's is lower by more than noise."""
    mine, examples = cell.exact_match, cell.exact_match_examples
    others = [c.exact_match for c in group if c is not cell and c.exact_match is not None and c.exact_match_examples == examples]
    if mine is None or not examples or not others:
        return None
    n = min(examples, cell.distinct_prompts or examples)
    return max(others) if apart(max(others), mine, n)[0] > 0 else None
