"""Write an image's digest into a stack's config file: the one place changes, comments and layout stay.

text = with_digest(text, "train", "sha256:...")
"""

import os
from pathlib import Path

import yaml

from ncdemo.spec.base import SpecError
from ncdemo.spec.load import read_text
from ncdemo.spec.stack_file import PROJECT, load_stack

STEP = 2
"""Columns of one level, where the file has none yet to go by."""


def write_digest(path: Path, name: str, digest: str) -> bool:
    """Set images.digests.<name>; return False if it says so already. Raise SpecError, the file untouched, where that can't be done."""
    before = load_stack(path)
    if before.spec.images.digests.get(name) == digest:  # type: ignore[call-overload]
        return False
    text, source = read_text(path)
    remedy = f"write it by hand: images.digests.{name}: {digest}"
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(with_digest(text, name, digest), encoding="utf-8")
        after = load_stack(new)
        wanted = before.spec.model_copy(
            update={"images": before.spec.images.model_copy(update={"digests": {**before.spec.images.digests, name: digest}})}
        )
        # The name of a stack that has none of its own is its file's, which the new file lacks.
        if after.spec != wanted:
            raise SpecError("the edited file would say something else; write it by hand")
        new.chmod(path.stat().st_mode & 0o777)
        os.replace(new, path)
    except (SpecError, OSError) as error:
        raise SpecError(f"{source}: the digest could not be written ({error}); {remedy}") from None
    finally:
        if new.is_file():
            new.unlink()
    return True


def with_digest(text: str, name: str, digest: str) -> str:
    """Return a stack file's text with images.digests.<name> set. Raise SpecError when it isn't a mapping down to there."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    node, lead, rest = root, None, ["config", f"{PROJECT}:images", "digests", name]
    while rest:
        if not isinstance(node, yaml.MappingNode):
            at = f"line {node.start_mark.line + 1}" if node else "the file"
            raise SpecError(f"{at}: no mapping that could hold {rest[0]}; make it one")
        keys = {PROJECT + ":images", "images"} if rest[0] == f"{PROJECT}:images" else {rest[0]}
        lead = next((pair for pair in node.value if pair[0].value in keys), None)
        if lead is None or (isinstance(lead[1], yaml.ScalarNode) and not lead[1].value and len(rest) > 1):
            break
        node, rest = lead[1], rest[1:]
    if not rest and node:
        return text[: node.start_mark.index] + digest + text[node.end_mark.index :]
    if lead is not None:
        raise SpecError(f"line {lead[0].start_mark.line + 1}: {rest[0]} is empty; remove it")
    assert isinstance(node, yaml.MappingNode)
    return _insert(text, node, rest, digest)


def _insert(text: str, node: yaml.MappingNode, keys: list[str], digest: str) -> str:
    """Return the text with nested keys added at the end of a mapping, in its own style."""
    if node.flow_style:
        close = node.end_mark.index - 1
        inner = keys[0] + ": " + "".join(f"{{{key}: " for key in keys[1:]) + f'"{digest}"' + "}" * (len(keys) - 1)
        kept = text[:close].rstrip()
        comma = "" if not node.value or kept.endswith(",") else ","
        space = " " if node.value else ""
        return text[: len(kept)] + comma + space + inner + text[len(kept) :]
    column = node.value[0][0].start_mark.column
    lines = [f"{' ' * (column + STEP * level)}{key}:" for level, key in enumerate(keys)]
    lines[-1] += f" {digest}"
    last = _end(text, node.value[-1][1])
    line_end = text.find("\n", last)
    at = len(text) if line_end < 0 else line_end
    return text[:at] + "\n" + "\n".join(lines) + text[at:]


def _end(text: str, node: yaml.Node) -> int:
    """Return where a node's own text ends: a block's mark lies after the blank lines and comments that follow it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    # A literal block's mark lies at the start of the next line.
    return node.end_mark.index - (text[node.end_mark.index - 1] == "\n")
