"""A Dockerfile as its instructions: enough of the syntax for ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    name: str
    text: str
    line: int


def parse(text: str) -> list[Step]:
    """Return the instructions, continued lines joined, comments left out."""
    steps: list[Step] = []
    held, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun = begun if held else number
        held += line.strip().removesuffix("\\").strip() + " "
        if not line.rstrip().endswith("\\"):
            name, _, rest = held.strip().partition(" ")
            steps.append(Step(name.upper(), rest.strip(), begun))
            held = ""
    return steps
