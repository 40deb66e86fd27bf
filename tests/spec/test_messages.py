"""Every message of the loader, word for word: a change of one is seen here.

A spec of its own stands in for the real ones, so that a new field there changes nothing here.
"""

from typing import Annotated, Literal, Self

import pytest
from annotated_types import MultipleOf
from pydantic import AfterValidator, Field, model_validator

from ncdemo.spec import Spec, SpecError, parse_spec
from ncdemo.spec.common import Name, NonEmpty, PositiveInt


def _even(value: int) -> int:
    if value % 2:
        raise AssertionError("must be even")
    return value


class Part(Spec):
    size: PositiveInt = 2
    label: NonEmpty = "x"


class Aks(Spec):
    kind: Literal["aks"]
    node_pool: NonEmpty


class Vm(Spec):
    kind: Literal["vm"]
    vm_size: NonEmpty


class Load(Spec):
    rate: float = Field(default=2e-5, gt=0, le=1)
    share: float = Field(default=0.5, ge=0, lt=1)
    steps: PositiveInt | None = None
    every_steps: PositiveInt = 1
    fast: bool = True


class Toy(Spec):
    kind: Literal["toy"] = "toy"
    name: Name = "toy"
    color: Literal["red", "off", "blue"] = "red"
    load: Load = Load()
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = (Part(),)
    modules: tuple[NonEmpty, ...] | Literal["all"] = "all"
    ports: tuple[PositiveInt, ...] = ()
    target: Annotated[Aks | Vm, Field(discriminator="kind")] = Vm(kind="vm", vm_size="NC40")
    pools: dict[Name, Part] = Field(default={})
    thirds: Annotated[int, MultipleOf(3)] = 3
    even: Annotated[int, AfterValidator(_even)] = 2
    region: Annotated[str, Field(pattern="^[a-z]+$", max_length=5)] = "here"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.load.steps and self.load.steps < self.load.every_steps:
            raise ValueError("load.every_steps is beyond\nload.steps; lower it")
        if self.region == "never":
            raise ValueError("No such luck; try later")
        return self


TOP = "Allowed here: color, even, kind, load, modules, name, parts, pools, ports, region, target, thirds"
NAME = "must be lower-case letters, digits and hyphens, at most 40, beginning and ending with a letter or digit"
YAML = "check indentation, quotes, brackets and colons there"
SIZE = "must be a whole number of at least 1"
PART = "a mapping with keys from: label, size"
EMPTY = "must be text that is not empty"
BASE_8 = "YAML reads digits after a leading 0 in base 8; drop the 0, or quote it if it is text"
BASE_60 = "YAML reads digits with colons in base 60; write a plain number, or quote it if it is text"
BITS = "must be a whole number of at most 64 bits; write a smaller one, or quote it if it is text"
DEEP = "nested too deeply (aliases count in full); shorten it: a spec is a few kilobytes and a few levels deep"
LARGE = "too large (aliases count in full); shorten it: a spec is a few kilobytes and a few levels deep"
NULL = "null is not allowed here: remove the key to take the default"
CORRECT = "correct it, or remove the key to take the default"
BOMB = "".join(f"k{i}: &k{i} [{','.join([f'*k{i - 1}' if i else 'x'] * 9)}]\n" for i in range(9))
CHAIN = "x:\n" + "".join(f"- &a{i} [[[[[[[[[[{f'*a{i - 1}' if i else 1}]]]]]]]]]]\n" for i in range(9))

# text, overrides, the message with {f} for the source
TABLE = [
    # Keys
    ("colour: red", "f:1: colour = 'red': unknown key; did you mean color? " + TOP),
    ("zzz: 1", "f:1: zzz = 1: unknown key; remove it. " + TOP),
    ("\n\nload:\n  Every-Steps: 1", "f:4: load.Every-Steps = 1: unknown key; did you mean every_steps? Allowed here: "
     "every_steps, fast, rate, share, steps"),
    ("share: 1", "f:1: share = 1: unknown key; it belongs in load. " + TOP),
    ("load.share: 1", "f:1: load.share = 1: unknown key; it belongs in load. " + TOP),
    ("load: {name: x}", "f:1: load.name = 'x': unknown key; it belongs in the top level. Allowed here: "
     "every_steps, fast, rate, share, steps"),
    ("parts:\n- size: 1\n- sise: 1", "f:3: parts.1.sise = 1: unknown key; did you mean size? Allowed here: label, size"),
    ("target: {kind: aks, node_pool: a, vm_size: b}", "f:1: target.vm_size = 'b': unknown key; remove it. Allowed here: kind, node_pool"),
    ("color: red\nload:\ncolor: blue", "f:3: color: appears twice, first in line 1; keep one of the two"),
    ("load:\n  fast: yes\n  fast: yes", "f:3: load.fast: appears twice, first in line 2; keep one of the two"),
    ("1: x", "f:1: key 1 is not text (YAML reads a number); write a name, e.g. train or data"),
    ("load:\n  on: x", "f:2: load: key on is not text (YAML reads true or false); write a name, e.g. train or data"),
    ("?\n: x", "f:1: key '' is not text (YAML reads null); write a name, e.g. train or data"),
    ("010: 010", "f:1: key 010 is not text (YAML reads a number); write a name, e.g. train or data\n" f"f:1: ? = 010: {BASE_8}"),
    ("*a : x", "f:1: ?: alias *a has no finished &a before it; write the value out"),
    ("!!str a: x", "f:1: ?: YAML tag !!str is not supported; write plain values, and text in quotes"),
    ("? [a]\n: 3", "f:1: key ['a'] is not text; write a name, e.g. train or data"),
    ("<<: {name: x}", "f:1: merge keys (<<) are not supported; write the values out"),
    ('"a\\nb": "\\0\\e"', "f:1: 'a\\nb' = '\\x00\\x1b': unknown key; remove it. " + TOP),
    ("pools: {Bad Name: {}}", f"f:1: pools.Bad Name = {{}}: the key {NAME}; rename it"),
    ("pools: {a: {sise: 1}}", "f:1: pools.a.sise = 1: unknown key; did you mean size? Allowed here: label, size"),
    # Numbers
    ("load: {rate: 2e-4}", "f:1: load.rate = '2e-4': must be a number greater than 0 and at most 1; "
     "YAML reads this as text: write 0.0002"),
    ("load: {rate: 2e-9}", "f:1: load.rate = '2e-9': must be a number greater than 0 and at most 1; "
     "YAML reads this as text: write 2.0e-09"),
    ("load: {steps: 1e3}", f"f:1: load.steps = '1e3': {SIZE}, or null; YAML reads this as text: write 1000"),
    ("load: {steps: 08}", f"f:1: load.steps = '08': {SIZE}, or null; YAML reads this as text: write 8"),
    ("load: {steps: '20'}", f"f:1: load.steps = '20': {SIZE}, or null; remove the quotes: write 20"),
    ("load: {steps: '1e999'}", f"f:1: load.steps = '1e999': {SIZE}, or null; {CORRECT} (null)"),
    ("load: {steps: 2e-4}", f"f:1: load.steps = '2e-4': {SIZE}, or null; {CORRECT} (null)"),
    ("load: {steps: 2.0}", f"f:1: load.steps = 2.0: {SIZE}, or null; remove the fraction: write 2"),
    ("load: {steps: 2.5}", f"f:1: load.steps = 2.5: {SIZE}, or null; {CORRECT} (null)"),
    ("load: {steps: 0}", f"f:1: load.steps = 0: {SIZE}, or null; {CORRECT} (null)"),
    ("load: {steps: true}", f"f:1: load.steps = true: {SIZE}, or null; {CORRECT} (null)"),
    ("load: {steps: None}", f"f:1: load.steps = 'None': {SIZE}, or null; {CORRECT} (null)"),
    ("load: {every_steps: }", f"f:1: load.every_steps = null: {SIZE}; {NULL} (1)"),
    ("load: {rate: 0}", f"f:1: load.rate = 0: must be a number greater than 0 and at most 1; {CORRECT} (2.0e-05)"),
    ("load: {rate: 1.5}", f"f:1: load.rate = 1.5: must be a number greater than 0 and at most 1; {CORRECT} (2.0e-05)"),
    ("load: {rate: fast}", f"f:1: load.rate = 'fast': must be a number greater than 0 and at most 1; {CORRECT} (2.0e-05)"),
    ("load: {share: 1}", f"f:1: load.share = 1: must be a number of at least 0 and less than 1; {CORRECT} (0.5)"),
    ("load: {share: -1_0}", f"f:1: load.share = -1_0: must be a number of at least 0 and less than 1; {CORRECT} (0.5)"),
    ("load: {share: .NaN}", "f:1: load.share = .NaN: must be a number of at least 0 and less than 1; infinity and NaN are not allowed"),
    ("load: {rate: -.inf}", "f:1: load.rate = -.inf: must be a number greater than 0 and at most 1; infinity and NaN are not allowed"),
    ("load: {steps: 1.0e+400}", f"f:1: load.steps = 1.0e+400: {SIZE}, or null; infinity and NaN are not allowed"),
    ("load: {steps: 010}", f"f:1: load.steps = 010: {BASE_8}"),
    ("load: {steps: 1:30}", f"f:1: load.steps = 1:30: {BASE_60}"),
    ("load: {rate: 1:30.5}", f"f:1: load.rate = 1:30.5: {BASE_60}"),
    ("load: {steps: 9223372036854775808}", f"f:1: load.steps = 9223372036854775808: {BITS}"),
    ("load: {steps: " + "9" * 5000 + "}", f"f:1: load.steps = '{'9' * 56}...: {BITS}"),
    ("load: {steps: 0x" + "f" * 5000 + "}", f"f:1: load.steps = '0x{'f' * 54}...: {BITS}"),
    ("load: {steps: 0b_}", f"f:1: load.steps = 0b_: {BITS}"),
    ("thirds: 4", f"f:1: thirds = 4: input should be a multiple of 3; {CORRECT} (3)"),
    # Text, choices, truth
    ("name: Bad", f"f:1: name = 'Bad': {NAME}; {CORRECT} ('toy')"),
    ("name: no", f"f:1: name = no: {NAME}; YAML reads this as true or false: quote it if it is text"),
    ("name: 12", f"f:1: name = 12: {NAME}; YAML reads this as a number: quote it if it is text"),
    ("name: " + "x" * 99, f"f:1: name = '{'x' * 56}...: {NAME}; {CORRECT} ('toy')"),
    ("region: NL", f"f:1: region = 'NL': must be text that matches ^[a-z]+$; {CORRECT} ('here')"),
    ("region: abcdefg", f"f:1: region = 'abcdefg': string should have at most 5 characters; {CORRECT} ('here')"),
    ("parts: [{label: ''}]", f"f:1: parts.0.label = '': {EMPTY}; {CORRECT} ('x')"),
    ("color: green", f"f:1: color = 'green': must be 'red', 'off' or 'blue'; {CORRECT} ('red')"),
    ("color: off", "f:1: color = off: must be 'red', 'off' or 'blue'; YAML reads this as true or false: quote it if it is text"),
    ("color: 3", f"f:1: color = 3: must be 'red', 'off' or 'blue'; {CORRECT} ('red')"),
    ("load: {fast: 'true'}", "f:1: load.fast = 'true': must be true or false; remove the quotes"),
    ("load: {fast: 1}", f"f:1: load.fast = 1: must be true or false; {CORRECT} (true)"),
    # Lists and sections
    ("parts: []", f"f:1: parts = []: must be a list of at least 1, each {PART}; {CORRECT}"),
    ("parts: {size: 0}", f"f:1: parts = {{'size': 0}}: must be a list of at least 1, each {PART}; {CORRECT}"),
    ("parts:\n-\n- 3", f"f:2: parts.0 = null: must be {PART}; null is not allowed here: remove the entry\n"
     f"f:3: parts.1 = 3: must be {PART}; correct it, or remove the entry"),
    ("modules: 5", f"f:1: modules = 5: must be a list, each text that is not empty, or 'all'; {CORRECT} ('all')"),
    ("modules: q", "f:1: modules = 'q': must be a list, each text that is not empty, or 'all'; write [q] for a list of one"),
    ("modules: 'q'", "f:1: modules = 'q': must be a list, each text that is not empty, or 'all'; write ['q'] for a list of one"),
    ("modules: [q, 5, '']", f"f:1: modules.1 = 5: {EMPTY}; YAML reads this as a number: quote it if it is text\n"
     f"f:1: modules.2 = '': {EMPTY}; correct it, or remove the entry"),
    ("ports: 80", "f:1: ports = 80: must be a list, each a whole number of at least 1; write [80] for a list of one"),
    ("ports: [0]", f"f:1: ports.0 = 0: {SIZE}; correct it, or remove the entry"),
    ("ports: [" + "0," * 30 + "]", "\n".join(f"f:1: ports.{i} = 0: {SIZE}; correct it, or remove the entry" for i in range(20))
     + "\nf: and 10 more mistakes; correct these first"),
    ("load: fast", f"f:1: load = 'fast': must be a mapping with keys from: every_steps, fast, rate, share, steps; {CORRECT}"),
    ("load:", f"f:1: load = null: must be a mapping with keys from: every_steps, fast, rate, share, steps; {NULL}"),
    ("pools: 3", f"f:1: pools = 3: must be a mapping; {CORRECT}"),
    ("target: {kind: pod}", "f:1: target.kind = 'pod': must be one of 'aks', 'vm'; correct it"),
    ("target: {}", "f:1: target.kind: is required: 'aks', or 'vm'; add it"),
    ("target: {kind: vm}", "f:1: target.vm_size: is required: text that is not empty; add it"),
    ("even: 3", "f:1: even = 3: must be even"),
    ("load:\n  steps: 3\n  every_steps: 4", "f:3: load.every_steps = 4: is beyond load.steps; lower it"),
    ("region: never", "f: spec: No such luck; try later"),
    # The whole text
    ("kind: train", "f:1: kind = 'train': this command takes kind: toy; correct it, or use the command for that kind"),
    ("kind:", "f:1: kind = null: this command takes kind: toy; correct it, or use the command for that kind"),
    ("\n- a", "f:2: the top level is ['a']; it must be a mapping, e.g. 'kind: toy'"),
    ("kind: toy\n---\nkind: toy", "f:2: a second document starts here; write one spec per file, without ---"),
    ("a: [1\nb: 3", f"f:2: not valid YAML: did not find expected ',' or ']'; {YAML}"),
    ("a: b: c", f"f:1: not valid YAML: mapping values are not allowed in this context; {YAML}"),
    ("a:\n\t- 3", "f:2: not valid YAML: found character that cannot start any token; use spaces, not tabs"),
    ('name: "\\ud800"', f"f:1: not valid YAML: found invalid Unicode character escape code; {YAML}"),
    ("%YAML 3.0\n---\na: 1", f"f:1: not valid YAML: found incompatible YAML document; {YAML}"),
    ("a: 1\na: 2\nb: [", "f:2: a: appears twice, first in line 1; keep one of the two\n"
     f"f:3: not valid YAML: did not find expected node content; {YAML}"),
    ("a: 1\n" * 40, "\n".join(f"f:{n}: a: appears twice, first in line 1; keep one of the two" for n in range(2, 22))),
    ("name: x\x00", "f:1: character '\\x00' is not allowed; remove it, and save the spec as UTF-8"),
    ("\n\ud800", "f:2: character '\\ud800' is not allowed; remove it, and save the spec as UTF-8"),
    ("a: !!binary aGk=", "f:1: a: YAML tag !!binary is not supported; write plain values, and text in quotes"),
    ("a: !!python/name:os.system x", "f:1: a: YAML tag !!python/name:os.system is not supported; write plain values, and text in quotes"),
    ("a: !mine {b: 1}", "f:1: a: YAML tag !mine is not supported; write plain values, and text in quotes"),
    ("a: *b", "f:1: a: alias *b has no finished &b before it; write the value out"),
    ("a: &a [*a]", "f:1: a.0: alias *a has no finished &a before it; write the value out"),
    (BOMB, f"f:5: {LARGE}"),
    (CHAIN, f"f:6: {DEEP}"),
    ("[" * 100_000, f"f:1: {DEEP}"),
    ("- " * 100_000, f"f:1: {DEEP}"),
    ("? " * 100_000, f"f:1: {DEEP}"),
    ("{a: " * 100_000, f"f:1: {DEEP}"),
]  # fmt: skip


def _message(text: str, overrides: list[str]) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, Toy, overrides, source="f")
    return str(caught.value)


@pytest.mark.parametrize(("text", "message"), TABLE, ids=lambda value: repr(value)[:40])
def test_a_mistake_in_the_file(text: str, message: str) -> None:
    assert _message(text, []) == message
    assert all(line.isprintable() for line in message.split("\n"))


FORM = "must be KEY=VALUE with a dotted key, e.g. --set train.max_steps=20"
OVERRIDES = [
    ("", ["load.steps"], f"--set load.steps: {FORM}"),
    ("", ["=3", "load..steps=3", ""], f"--set =3: {FORM}\n--set load..steps=3: {FORM}\n--set : {FORM}"),
    ("", ["load.steps=[1"], f"--set load.steps=[1: load.steps: not valid YAML: did not find expected ',' or ']'; {YAML}"),
    ("", ["load.steps=\ud800"], "--set 'load.steps=\\ud800': character '\\ud800' is not allowed; remove it, and save the spec as UTF-8"),
    ("", ["load.steps=0"], f"--set load.steps=0: load.steps = 0: {SIZE}, or null; {CORRECT} (null)"),
    ("load:\n  steps: 3", ["load.steps=010"], f"--set load.steps=010: load.steps = 010: {BASE_8}"),
    ("", ["load.every_steps="], f"--set load.every_steps=: load.every_steps = null: {SIZE}; {NULL} (1)"),
    ("load:\n  steps: 5\n  rate: 0", ["load={steps: 0}"], "--set load={steps: 0}: load.steps = 0: "
     f"{SIZE}, or null; {CORRECT} (null)"),
    ("", ["load.step=1"], "--set load.step=1: load.step = 1: unknown key; did you mean steps? Allowed here: "
     "every_steps, fast, rate, share, steps"),
    ("", ["kind=train"], "--set kind=train: kind = 'train': this command takes kind: toy; correct it, or use the command for that kind"),
    ("load: 5", ["load.steps=1"], "--set load.steps=1: load is 5, which has no keys below it; shorten the key"),
    ("", ["parts.0.size=1"], "--set parts.0.size=1: parts has no entries in the file; set the whole list: --set 'parts=[...]'"),
    ("parts: []", ["parts.0.size=1"], "--set parts.0.size=1: 0 is not an index of parts, a list of 0; set the whole list"),
    ("ports: [1]", ["ports.1=1"], "--set ports.1=1: 1 is not an index of ports, a list of 1; use 0"),
    ("ports: [1, 2]", ["ports.²=1"], "--set ports.²=1: ² is not an index of ports, a list of 2; use 0 to 1"),
    ("ports: [1, 2]", ["ports.1=0"], f"--set ports.1=0: ports.1 = 0: {SIZE}; correct it, or remove the entry"),
    ("load: {steps: 3}", ["load.every_steps=4"], "--set load.every_steps=4: load.every_steps = 4: "
     "is beyond load.steps; lower it"),
    ("load: {every_steps: 4}", ["load.steps=3"], "--set load.steps=3: load.steps = 3: load.every_steps is beyond load.steps; lower it"),
    ("target: {kind: vm}", ["target.kind=aks"], "f:1: target.node_pool: is required: text that is not empty; add it"),
    ("a: &p {size: 1}\nparts: [*p, *p]", ["parts.0.size=0"], f"--set parts.0.size=0: parts.0.size = 0: {SIZE}; {CORRECT} (2)\n"
     "f:1: a = {'size': 1}: unknown key; remove it. " + TOP),
]  # fmt: skip


@pytest.mark.parametrize(("text", "overrides", "message"), OVERRIDES, ids=lambda value: repr(value)[:40])
def test_a_mistake_in_an_override(text: str, overrides: list[str], message: str) -> None:
    assert _message(text, overrides) == message
    assert all(line.isprintable() for line in message.split("\n"))
