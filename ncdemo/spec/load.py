"""YAML to spec. Every mistake is one line: file and line, key, value, what is allowed, what to do.

spec = load_spec("demo.yaml", TrainSpec, overrides=["train.max_steps=20"])
"""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ncdemo.spec.base import Spec, SpecError
from ncdemo.spec.explain import explain, value_of, where
from ncdemo.spec.read import MAX_BYTES, Place, read
from ncdemo.spec.show import Keys, bare, dotted, shown

S = TypeVar("S", bound=Spec)


def load_spec(path: str | Path, model: type[S], overrides: Sequence[str] = ()) -> S:
    """Read a YAML file, apply dotted overrides (key=YAML value), validate. Raise SpecError on any mistake."""
    text, source = read_text(path)
    if not text.strip():
        raise SpecError(f"{source}: is empty; write at least 'kind: {_kind(model)}', which takes every default")
    return parse_spec(text, model, overrides, source)


def read_text(path: str | Path) -> tuple[str, str]:
    """Return a spec file's text and its name for messages. Raise SpecError if it can't be read."""
    path = Path(path)
    source = bare(str(path), limit=4096)
    try:
        # Read at most so much, whatever the path is: /dev/zero has no size either.
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SpecError(f"{source}: larger than {MAX_BYTES} bytes; give the spec itself, which is a few kilobytes")
        return content.decode("utf-8-sig"), source
    except FileNotFoundError:
        raise SpecError(f"{source}: no such file; give the path of a YAML spec{_near(path)}") from None
    except IsADirectoryError:
        raise SpecError(f"{source}: is a folder; give the path of a YAML file in it") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{source}:{line}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{source}: cannot be read ({reason}); check the path and its permissions") from None


def parse_spec(text: str, model: type[S], overrides: Sequence[str] = (), source: str = "spec") -> S:
    """Validate YAML text (none: every default); `source` names it in messages. Raise SpecError on any mistake."""
    data, places = read(text, lambda line: f"{source}:{line}")
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise SpecError(f"{places[()].where}: the top level is {shown(data)}; it must be a mapping, e.g. 'kind: {_kind(model)}'")
    return validate(data, places, model, overrides, source)


def validate(data: dict[str, Any], places: dict[Keys, Place], model: type[S], overrides: Sequence[str], source: str) -> S:
    """Apply overrides to what was read, in place, and make it a spec. Raise SpecError on any mistake."""
    problems = []
    for override in overrides:
        try:
            _apply(data, places, override)
        except SpecError as error:
            problems.append(str(error))
    if problems:
        raise SpecError("\n".join(dict.fromkeys(problems)))
    kind = _kind(model)
    if data.get("kind", kind) != kind:
        wrong = f"{where(('kind',), places, source)}: kind = {value_of(('kind',), data, places)}"
        raise SpecError(f"{wrong}: this command takes kind: {kind}; correct it, or use the command for that kind")
    try:
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise SpecError("\n".join(explain(error, model, data, places, source))) from None


def dump_spec(spec: Spec) -> str:
    """Return the resolved spec as YAML that load_spec reads back to an equal spec."""
    data = spec.to_dict()
    # PyYAML writes these line breaks as they are and reads them back as spaces; escaped they survive.
    breaks = set("\x85\u2028\u2029") & set(json.dumps(data, ensure_ascii=False))
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=not breaks)


def _apply(data: dict[str, Any], places: dict[Keys, Place], override: str) -> None:
    """Set one dotted key in place, and say in `places` that the override did."""
    at = f"--set {bare(override, limit=200)}"
    key, separator, raw = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise SpecError(f"{at}: must be KEY=VALUE with a dotted key, e.g. --set train.max_steps=20")
    new, new_places = read(raw, lambda line: at, above=tuple(names))
    here: Any = data
    path: Keys = ()
    for name, after in zip(names, [*names[1:], None], strict=True):
        step = _step(here, name, at, path)
        path = (*path, step)
        if after is None:
            here[step] = new
        elif isinstance(here, list) or here.get(step) is not None:
            here = here[step]
        elif after.isdecimal():
            raise SpecError(f"{at}: {dotted(path)} has no entries in the file; set the whole list: --set '{dotted(path)}=[...]'")
        else:
            here[step] = {}
            here = here[step]
    for old in [p for p in places if p[: len(path)] == path]:
        del places[old]
    places.update({(*path, *p): place for p, place in new_places.items()} or {path: Place(at)})


def _step(here: Any, name: str, at: str, path: Keys) -> str | int:
    """Return the key or index that a name of an override means here."""
    if isinstance(here, dict):
        return name
    if not isinstance(here, list):
        raise SpecError(f"{at}: {dotted(path)} is {shown(here)}, which has no keys below it; shorten the key")
    if not re.fullmatch(r"[0-9]{1,6}", name) or int(name) >= len(here):
        remedy = f"use {' to '.join(dict.fromkeys(['0', str(len(here) - 1)]))}" if here else "set the whole list"
        raise SpecError(f"{at}: {bare(name)} is not an index of {dotted(path)}, a list of {len(here)}; {remedy}")
    return int(name)


def _kind(model: type[Spec]) -> str:
    return str(model.model_fields["kind"].default)


def _near(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.glob("*.y*ml")]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {bare(str(path.parent / near[0]), limit=4096)}?" if near else ""
