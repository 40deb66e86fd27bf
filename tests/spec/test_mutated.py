"""2,000 broken specs: whatever a file or an override holds, the loader answers with one line per mistake.

A case is repeatable by its number. survey(100_000, folder) was run once; after a change here or in the loader, run more too.
"""

import random
import re
from collections.abc import Callable
from pathlib import Path

from ncdemo.spec import SPECS, BenchSpec, Spec, SpecError, TrainSpec, dump_spec, load_spec, parse_spec

CASES = 2_000
TRAIN = """\
kind: train  # what to run
name: demo
model: &model {name: smollm2-135m-instruct, revision: "abc"}
data:
  name: ncdemo-jobs
  packing: true
  max_seq_len: 512
train:
  method: lora
  lora:
    r: 8
    target_modules:
      - q_proj
      - 'v_proj'
  learning_rate: 2.0e-5
  max_grad_norm: null
telemetry: {sample_hz: 0.5, mlflow_uri: ~}
"""
BENCH = """\
kind: bench
models:
- name: a
  revision: main
- {name: b}
engines: [transformers]
concurrency: [1, 8]
prompts: {file: prompts/jobs.jsonl, count: 16}
slo: {ttft_s: 2, tpot_s: 0.1}
memory_fraction: 0.4
"""
WORDS = r"""
null ~ true 'true' yes no off on 0 -1 1 00 010 08 1:30 0x1F 0b_ 0o7 1_000 1e3 2e-4 1.0e+400 -0.0 .inf -.INF .nan NaN 2.0 0.5
99999999999999999999 '20' "20" [] {} [[]] [1,x] {a:} {a:{b:{c:}}} - ? : & &b *a *model !!int !!binary !!python/object:os.system
!x << {<<:*model} 2024-01-01 2024-13-45 @x `x % %YAML --- ... # #x ' " "\ud800" "\0\n" "\x1b[31m" \ = , } ] >- |
auto train bench full lora a.b a:b é
"""
NASTY = ["", "- a", "? a", ": ", "a: b: c", "&b c", "!!int x", "\u2028", "\x85", "\ufeff", "\u202e", "\U0001f600", "\t", "\0", "\x7f"]
NASTY += WORDS.split()
KEYS = ["train", "max_steps", "max-steps", "Name", "<<", "1", "on", "~", "?", "a.b", "''", '"\\n"', "[a]", "{a: b}", "*model", "é", "kind"]
OVERRIDES = [
    "train.max_steps=3",
    "train.lora={r: 4}",
    "models.0.name=x",
    "engines=[echo]",
    "concurrency.1=2",
    "data.packing=no",
    "kind=train",
]


def _flip(rng: random.Random, text: bytes) -> bytes:
    at = rng.randrange(len(text))
    return text[:at] + bytes([rng.randrange(256)]) + text[at + rng.randrange(2) :]


def _cut(rng: random.Random, text: bytes) -> bytes:
    a, b = sorted(rng.choices(range(len(text) + 1), k=2))
    return rng.choice([text[:a], text[:a] + text[b:], text[a:b] + text, text[:b] + text[a:]])


def _lines(rng: random.Random, text: bytes) -> bytes:
    lines = text.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    spaces = rng.choice([b" ", b"  ", b"\t", b"- ", b"    "])
    change: list[Callable[[], object]] = [
        lambda: lines.pop(at),
        lambda: lines.insert(other, lines[at]),
        lambda: lines.__setitem__(at, spaces + lines[at]),
        lambda: lines.__setitem__(at, lines[at].lstrip()),
        lambda: lines.__setitem__(slice(at, at + 1), [lines[other], lines[at]]),
    ]
    rng.choice(change)()
    return b"\n".join(lines)


def _value(rng: random.Random, text: bytes) -> bytes:
    spots = [*re.finditer(rb"(?<=: )[^\n,}\]]+|(?<=- )[^\n]+", text)] or [re.compile(b"").match(text)]
    spot = rng.choice(spots)
    return text[: spot.start()] + rng.choice(NASTY).encode() + text[spot.end() :]


def _key(rng: random.Random, text: bytes) -> bytes:
    spots = [*re.finditer(rb"\w+(?=:)", text)] or [re.compile(b"").match(text)]
    spot, other = rng.choice(spots), rng.choice(spots)
    return text[: spot.start()] + rng.choice([other[0], rng.choice(KEYS).encode()]) + text[spot.end() :]


def _token(rng: random.Random, text: bytes) -> bytes:
    tokens = re.split(rb"(\W)", text)
    a, b = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    tokens[a], tokens[b] = tokens[b], rng.choice([tokens[a], rng.choice(NASTY).encode()])
    return b"".join(tokens)


def _override(rng: random.Random) -> str:
    key, _, value = rng.choice(OVERRIDES).partition("=")
    parts = key.split(".")
    parts[rng.randrange(len(parts))] = rng.choice([rng.choice(parts), rng.choice(KEYS), "0", "9", "²", "", "-1"])
    key = rng.choice([key, ".".join(parts), ".".join([*parts, rng.choice(KEYS)])])
    return key + rng.choice(["=", "=", "=", "", "=="]) + rng.choice([value, rng.choice(NASTY), "\udcff", "[" * 60, "9" * 5000])


def survey(cases: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Load so many broken specs; return how many were refused and how many still loaded. Raise on any other outcome."""
    texts: list[tuple[bytes, type[Spec]]] = [(TRAIN.encode(), TrainSpec), (BENCH.encode(), BenchSpec)]
    texts += [(dump_spec(model()).encode(), model) for model in SPECS.values()]
    path, counts = folder / "broken.yaml", {"refused": 0, "loaded": 0}
    for case in range(cases):
        rng = random.Random(seed + case)
        text, model = rng.choice(texts)
        for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
            text = rng.choice([_flip, _cut, _lines, _value, _value, _key, _token])(rng, text or b"a: b")
        overrides = [_override(rng) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
        path.write_bytes(text)
        try:
            spec = load_spec(path, model, overrides)
        except SpecError as error:
            counts["refused"] += 1
            lines = str(error).split("\n")
            assert all(line.startswith((str(path), "--set ")) and line.isprintable() for line in lines), (case, lines)
            keys = [line.partition(" = ")[0] for line in lines]
            assert len(keys) == len(set(keys)), (case, lines)
        except Exception as error:
            raise AssertionError(f"case {case}: {error!r} from {text!r} with {overrides}") from error
        else:
            counts["loaded"] += 1
            assert parse_spec(dump_spec(spec), model) == spec, (case, text)
    return counts


def test_broken_specs_end_in_one_line_per_mistake(tmp_path: Path) -> None:
    counts = survey(CASES, tmp_path)
    assert min(counts.values()) > CASES // 20, f"the mutator is too harsh or too gentle: {counts}"
