"""YAML text to plain values, each with the place where it was written, so that a mistake can be pointed at.

    value, places = read(text, lambda line: f"demo.yaml:{line}")

Works on parser events, so that neither depth nor aliases can exhaust the machine. Refuses what JSON can't say and what
YAML 1.1 reads otherwise than people do: duplicate keys, keys that aren't text, tags, merge keys, numbers in base 8 or 60.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from ncdemo.spec.base import SpecError
from ncdemo.spec.scalar import NOT_TEXT, kind, scalar
from ncdemo.spec.show import Keys, bare, dotted, shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_PROBLEMS = 20
# What a node weighs beside its text: with MAX_BYTES this allows about 20,000 nodes, aliases written out.
NODE_BYTES = 50


class Place(NamedTuple):
    where: str
    """file:line, or --set key=value."""
    plain: str | None = None
    """A scalar as written, if it has no quotes."""


def read(text: str, where: Callable[[int], str], above: Keys = ()) -> tuple[Any, dict[Keys, Place]]:
    """Return the value (None for no document) and its places. Raise SpecError, a line per mistake.

    `where` names a line, `above` the key that the text is the value of; places are relative to it.
    """
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise SpecError(f"{where(line)}: character {bad[0]!r} is not allowed; remove it, and save the spec as UTF-8")
    reader = _Reader(text, where, above)
    try:
        value = reader.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None
        lines = text.splitlines()
        line = min(mark.line, len(lines) - 1)  # libyaml puts an early end after the last line
        remedy = "use spaces, not tabs" if "\t" in lines[line] else "check indentation, quotes, brackets and colons there"
        reader.problem(line + 1, f"not valid YAML: {error.problem}; {remedy}")
    if reader.problems:
        raise SpecError("\n".join(reader.problems))
    return value, reader.places


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1


class _Reader:
    def __init__(self, text: str, where: Callable[[int], str], above: Keys) -> None:
        self.events = yaml.parse(text, Loader=yaml.CSafeLoader)
        self.where = where
        self.above = above
        self.places: dict[Keys, Place] = {}
        self.anchors: dict[str, tuple[Any, str | None]] = {}
        self.problems: list[str] = []
        self.size = 0

    def problem(self, line: int, text: str, path: Keys = (), value: str = "") -> None:
        """Note a mistake and go on; give up after many."""
        what = " = ".join(filter(None, [dotted((*self.above, *path)), value]))
        self.problems.append(": ".join(filter(None, [self.where(line), what, text])))
        if len(self.problems) >= MAX_PROBLEMS:
            raise SpecError("\n".join(self.problems))

    def enter(self, path: Keys, line: int, plain: str | None, size: int, depth: int) -> None:
        """Note a node's place; give up on what is too large or too deep."""
        self.places[path] = Place(self.where(line), plain)
        self.size += size + NODE_BYTES
        if self.size > MAX_BYTES or depth > MAX_DEPTH:
            what = "nested too deeply" if depth > MAX_DEPTH else "too large"
            self.problem(line, f"{what} (aliases count in full); shorten it: a spec is a few kilobytes and a few levels deep")
            raise SpecError("\n".join(self.problems))

    def document(self) -> Any:
        next(self.events)
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        first = next(self.events)
        value = self.node(first, (), _line(first))
        next(self.events)
        more = next(self.events)
        if not isinstance(more, yaml.StreamEndEvent):
            self.problem(_line(more), "a second document starts here; write one spec per file, without ---")
        return value

    def node(self, event: yaml.Event, path: Keys, line: int, depth: int = 0) -> Any:
        if isinstance(event, yaml.AliasEvent):
            anchor = str(event.anchor)
            if anchor in self.anchors:
                return self.paste(*self.anchors[anchor], path, line, depth)
            self.problem(line, f"alias *{bare(anchor)} has no finished &{bare(anchor)} before it; write the value out", path)
            return None
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        plain = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else None
        self.enter(path, line, plain, len(event.value) if isinstance(event, yaml.ScalarEvent) else 0, depth)
        if event.tag not in (None, "!"):
            tag = bare(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self.problem(line, f"YAML tag {tag} is not supported; write plain values, and text in quotes", path)
        value: Any = None
        if isinstance(event, yaml.ScalarEvent):
            try:
                value = event.value if plain is None else scalar(plain)
            except ValueError as error:
                self.problem(line, str(error), path, bare(event.value))
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(child := next(self.events), yaml.SequenceEndEvent):
                value.append(self.node(child, (*path, len(value)), _line(child), depth + 1))
        else:
            value = self.mapping(path, depth)
        if event.anchor:
            self.anchors[event.anchor] = (value, plain)
        return value

    def paste(self, value: Any, plain: str | None, path: Keys, line: int, depth: int) -> Any:
        """Return a copy of an anchored value, so that an override of one place leaves the others alone."""
        self.enter(path, line, plain, len(value) if isinstance(value, str) else 0, depth)
        if isinstance(value, dict):
            return {key: self.paste(child, None, (*path, key), line, depth + 1) for key, child in value.items()}
        if isinstance(value, list):
            return [self.paste(child, None, (*path, i), line, depth + 1) for i, child in enumerate(value)]
        return value

    def mapping(self, path: Keys, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = _line(event)
            key = self.key(event, path, line, depth)
            if key in out:
                self.problem(line, f"appears twice, first in line {lines[key]}; keep one of the two", (*path, key))
            name = "?" if key is None else key
            lines.setdefault(name, line)
            out[name] = self.node(next(self.events), (*path, name), line, depth + 1)
        return out

    def key(self, event: yaml.Event, path: Keys, line: int, depth: int) -> str | None:
        """Return a key, or None after a problem with it."""
        names = "write a name, e.g. train or data"
        plain = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else None
        if plain == "<<":
            self.problem(line, "merge keys (<<) are not supported; write the values out", path)
            return None
        if plain is not None and (other := NOT_TEXT.get(kind(plain))):
            self.problem(line, f"key {bare(plain) or shown(plain)} is not text (YAML reads {other}); {names}", path)
            return None
        known = len(self.problems)
        value = self.node(event, (*path, "?"), line, depth + 1)
        if not isinstance(value, str) and len(self.problems) == known:
            self.problem(line, f"key {shown(value)} is not text; {names}", path)
        return value if isinstance(value, str) else None
