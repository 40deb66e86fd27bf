"""Servers' own arguments in a comparison: those that change the answer or the work refuse it, the others are named above it.

differing(cells_of_a, cells_of_b)         # why not, or None
given(a.server_args, b.server_args)       # the lines above the table
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ncdemo.spec.result_bench import Cell
from ncdemo.spec.server_args import ONLY_NAMED, ServerArg, plain

REMEDY = "give both the same in server_args, or read each one's own figures (ncdemo bench export); nothing overrides this"


@dataclass(frozen=True)
class Arguments:
    """What one side's server was given beside ncdemo's own, and the other's was not."""

    side: str
    """a or b."""
    arguments: tuple[ServerArg, ...]

    @property
    def shown(self) -> str:
        said = (f"{arg.shown} ({'unknown effect' if arg.changes == 'unknown' else arg.changes})" for arg in self.arguments)
        return f"{self.side}: its server alone was given {', '.join(said)}"


def differing(ours: Sequence[Cell], theirs: Sequence[Cell], names: tuple[str, str] = ("a", "b")) -> str | None:
    """Return how arguments differ that change the answer or the work; None where none does, or one side's are not known."""
    mine, others = _first(ours), _first(theirs)
    if mine is None or others is None:
        return None
    one_engine = ours[0].engine == theirs[0].engine
    found = []
    for effect in dict.fromkeys(arg.changes for arg in (*mine, *others) if arg.changes not in ONLY_NAMED):
        pair = [[arg for arg in args if arg.changes == effect] for args in (mine, others)]
        if not _equal(*pair, one_engine=one_engine):
            has = " and ".join(
                f"{name} {', '.join(arg.shown for arg in args) or 'nothing'}" for name, args in zip(names, pair, strict=True)
            )
            found.append(f"{effect} ({has})")
    return f"the servers' arguments differ in {'; '.join(found)}: {REMEDY}" if found else None


def given(ours: Sequence[ServerArg], theirs: Sequence[ServerArg]) -> list[Arguments]:
    """Return what each side's server alone was given."""
    found = []
    for side, mine, others in (("a", ours, theirs), ("b", theirs, ours)):
        if alone := tuple(arg for arg in mine if _key(arg) not in {_key(other) for other in others}):
            found.append(Arguments(side, alone))
    return found


def _first(cells: Sequence[Cell]) -> list[ServerArg] | None:
    return next((cell.server_args for cell in cells if cell.server_args is not None), None)


def _equal(mine: Sequence[ServerArg], others: Sequence[ServerArg], *, one_engine: bool) -> bool:
    """Say whether arguments of one effect come to the same. Two engines' have other names: there one equal value shows it."""
    if one_engine:
        return sorted(map(_key, mine)) == sorted(map(_key, others))
    return len(mine) == len(others) == 1 and _key(mine[0])[1] == _key(others[0])[1]


def _key(arg: ServerArg) -> tuple[str, str]:
    """Return name and value without what makes no difference: dashes, and how JSON is laid out."""
    value = arg.value or ("off" if arg.name.lstrip("-").startswith("no-") else "on")
    with suppress(ValueError):
        value = json.dumps(json.loads(value), sort_keys=True)
    return plain(arg.name), value
