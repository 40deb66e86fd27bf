"""YAML to spec. Every mistake is one line: file and line, key, value, what is allowed, what to do.

    spec = load_spec("demo.yaml", TrainSpec, overrides=["train.max_steps=20"])
"""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ncdemo.spec.base import Spec, SpecError

S = TypeVar("S", bound=Spec)
MAX_BYTES = 1 << 20
MAX_NODES = 20_000
# What people mean as a number and YAML 1.1 reads as a string: an exponent without a dot or without its sign.
YAML_STRING_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")


def load_spec(path: str | Path, model: type[S], overrides: Sequence[str] = ()) -> S:
    """Read a YAML file, apply dotted overrides (key=YAML value), validate. Raise SpecError on any mistake."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpecError(f"{path}: {path.stat().st_size} bytes is too large for a spec; at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file; give the path of a YAML spec{_near(path)}") from None
    except IsADirectoryError:
        raise SpecError(f"{path}: is a folder; give the path of a YAML file in it") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"{path!r}: cannot be read ({error}); check the path and its permissions") from None
    return parse_spec(text, model, overrides, source=str(path))


def parse_spec(text: str, model: type[S], overrides: Sequence[str] = (), source: str = "spec") -> S:
    """Validate YAML text; `source` names it in messages. Raise SpecError on any mistake."""
    root = _compose(text, source)
    data = {} if root is None else _plain(root, source)
    if not isinstance(data, dict):
        raise SpecError(f"{source}: the top level is {_shown(data)}; it must be a mapping, e.g. 'kind: {_kind(model)}'")
    given = data.get("kind", _kind(model))
    if given != _kind(model):
        raise SpecError(f"{source}: kind = {_shown(given)}: this command takes kind: {_kind(model)}; use the command for that kind")
    for override in overrides:
        _apply(data, override)
    try:
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        changed = {o.split("=", 1)[0].strip() for o in overrides}
        raise SpecError("\n".join(_line(e, model, data, root, source, changed) for e in error.errors())) from None


def dump_spec(spec: Spec) -> str:
    """Return the resolved spec as YAML that load_spec reads back to an equal spec."""
    return yaml.safe_dump(spec.to_dict(), sort_keys=False, allow_unicode=True)


# Reading YAML ---------------------------------------------------------------------------------------------------------


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SpecError(f"{where}: not valid YAML: {problem}; check indentation, quotes and colons there") from None
    except RecursionError:
        raise SpecError(f"{source}: nested too deeply; a spec is a few levels deep") from None


def _plain(root: yaml.Node, source: str) -> Any:
    """Turn nodes into plain values, refusing what JSON can't say: duplicate or non-text keys, aliases to itself, tags."""
    budget = [MAX_NODES]
    scalars = yaml.SafeLoader("")

    def value(node: yaml.Node, above: tuple[int, ...]) -> Any:
        budget[0] -= 1
        at = f"{source}:{node.start_mark.line + 1}"
        if budget[0] < 0 or len(above) > 50 or id(node) in above:
            raise SpecError(f"{at}: too large, too deep, or an alias that contains itself; a spec is a few levels deep")
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [value(child, (*above, id(node))) for child in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            out: dict[str, Any] = {}
            for key_node, child in node.value:
                key = key_node.value
                line = key_node.start_mark.line + 1
                if not isinstance(key, str) or key_node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                    raise SpecError(f"{source}:{line}: key {_shown(key)} is not text; keys are names such as train or data")
                if key_node.tag.endswith("merge"):
                    raise SpecError(f"{source}:{line}: YAML merge keys (<<) are not supported; write the values out")
                if key in out:
                    raise SpecError(f"{source}:{line}: {key} appears twice; keep one of the two")
                out[key] = value(child, (*above, id(node)))
            return out
        if isinstance(node, yaml.ScalarNode):
            try:
                return scalars.construct_object(node)
            except (yaml.YAMLError, ValueError, OverflowError):
                raise SpecError(f"{at}: {_shown(node.value)} cannot be read as {node.tag.split(':')[-1]}; quote it if it is text") from None
        raise SpecError(f"{at}: YAML tag {node.tag} is not supported; write plain values")

    return value(root, ())


def _apply(data: dict[str, Any], override: str) -> None:
    """Set one dotted key in place."""
    key, separator, raw = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise SpecError(f"--set {override}: must be KEY=VALUE with a dotted key, e.g. --set train.max_steps=20")
    root = _compose(raw, f"--set {key}")
    new = None if root is None else _plain(root, f"--set {key}")
    here: Any = data
    for part in parts[:-1]:
        here = _child(here, part, override)
    if isinstance(here, list):
        here[_index(here, parts[-1], override)] = new
    else:
        here[parts[-1]] = new


def _child(here: Any, part: str, override: str) -> Any:
    if isinstance(here, list):
        inner = here[_index(here, part, override)]
    else:
        if here.get(part) is None:
            here[part] = {}
        inner = here[part]
    if not isinstance(inner, dict | list):
        raise SpecError(f"--set {override}: {part} is {_shown(inner)}, which has no keys below it; shorten the key")
    return inner


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise SpecError(f"--set {override}: {part} is not an index of a list of {len(items)}; use 0 to {len(items) - 1}")
    return int(part)


# Saying what is wrong -------------------------------------------------------------------------------------------------


def _line(error: Any, model: type[Spec], data: Any, root: yaml.Node | None, source: str, changed: set[str]) -> str:
    loc = tuple(part for part in error["loc"] if isinstance(part, int) or _exists(part, data) or error["type"] in ("extra_forbidden",))
    key = ".".join(str(part) for part in loc) or "spec"
    where = f"--set {key}" if key in changed else _where(root, loc, source)
    shown = "" if error["type"] in ("missing", "value_error") and not loc else f" = {_shown(error['input'])}"
    return f"{where}: {key}{shown}: {_problem(error, model, loc)}"


def _exists(part: str, data: Any) -> bool:
    """Say whether a name in an error's location is a key the user wrote (pydantic also puts union members there)."""
    if isinstance(data, dict):
        return part in data or any(_exists(part, child) for child in data.values())
    return isinstance(data, list) and any(_exists(part, child) for child in data)


def _where(root: yaml.Node | None, loc: tuple[Any, ...], source: str) -> str:
    node, line = root, None
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return f"{source}:{line}" if line else source


def _problem(error: Any, model: type[Spec], loc: tuple[Any, ...]) -> str:
    kind, ctx, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        allowed = sorted(_fields(model, loc[:-1]))
        near = difflib.get_close_matches(str(loc[-1]), allowed, n=1)
        hint = f"did you mean {near[0]}?" if near else "remove it."
        return f"unknown key; {hint} Allowed here: {', '.join(allowed)}"
    if kind == "value_error":
        return str(ctx["error"])
    wants = {
        "literal_error": f"must be {ctx.get('expected')}",
        "string_type": "must be text; quote it",
        "string_too_short": "must not be empty",
        "string_pattern_mismatch": "must be lower-case letters, digits and hyphens, at most 40, beginning and ending with a letter or digit",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number; remove the fraction",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "bool_type": "must be true or false",
        "greater_than_equal": f"must be at least {ctx.get('ge')}",
        "greater_than": f"must be greater than {ctx.get('gt')}",
        "less_than_equal": f"must be at most {ctx.get('le')}",
        "less_than": f"must be less than {ctx.get('lt')}",
        "tuple_type": "must be a list, e.g. [1, 2]",
        "too_short": f"must have at least {ctx.get('min_length')} entries",
        "model_type": "must be a mapping of keys to values",
        "missing": "is required; add it",
    }
    text = wants.get(kind, error["msg"])
    if kind == "model_type" or kind == "model_attributes_type":
        text = f"must be a mapping with keys from: {', '.join(sorted(_fields(model, loc)))}"
    if isinstance(value, str) and kind in ("float_type", "int_type") and YAML_STRING_NUMBER.fullmatch(value.strip()):
        number = float(value)
        written = str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.12f}".rstrip("0")
        return f"{text}; YAML reads this as text (an exponent needs a dot and a sign): write {written}"
    if isinstance(value, str) and kind in ("float_type", "int_type", "bool_type"):
        return f"{text}, without quotes"
    if value is None:
        return f"{text}; null is not allowed here: remove the key to take the default"
    return text if ";" in text else f"{text}; correct it, or remove the key to take the default"


def _fields(model: type[BaseModel], loc: tuple[Any, ...]) -> set[str]:
    """Return the keys allowed at a place in the spec."""
    for part in loc:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = _submodel(field.annotation) if field else None
        if inner is None:
            return set()
        model = inner
    return set(model.model_fields)


def _submodel(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_submodel, get_args(annotation)) if m), None)


def _kind(model: type[Spec]) -> str:
    return str(model.model_fields["kind"].default)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _near(path: Path) -> str:
    names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""
