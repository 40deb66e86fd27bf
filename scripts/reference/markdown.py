"""Pages and tables in Markdown as GitHub renders it."""

import re

NOTE = "<!-- Written by scripts/reference: change the source, then `make docs`. -->"
INDEX = "[All pages](../README.md)"


def page(title: str, *parts: str) -> str:
    return "\n\n".join([NOTE, f"# {title}", INDEX, *filter(None, parts)]) + "\n"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("-",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(text) for text in line)} |" if line is not lines[1] else f"|{'|'.join(line)}|" for line in lines)


def cell(text: str) -> str:
    """Return text that may stand in a cell: one line, bars escaped, and nothing that reads as HTML."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()).replace("|", r"\|"))
    return "".join(one if one.startswith("`") else one.replace("<", "&lt;") for one in pieces)


def anchor(heading: str) -> str:
    """Return a heading's anchor as GitHub makes it."""
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
