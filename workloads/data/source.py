"""The examples a run trains on and is judged by, from wherever the spec says, and a record of what they really were."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ncdemo.spec.base import SpecError
from ncdemo.spec.common import SHIPPED_DATA
from ncdemo.spec.train import Data
from workloads.data.download_dataset import download_dataset
from workloads.data.formats import Example, load_examples, split, to_example
from workloads.data.jobs_task import generate
from workloads.data.manifest import DATA_SUFFIXES

SHIPPED_TRAIN, SHIPPED_HELD_OUT = 4000, 500


@dataclass(frozen=True)
class Dataset:
    train: list[Example]
    held_out: list[Example]
    record: dict[str, str | int | bool | None]
    """For the result: name, revision, what it fell back to, content hash, counts."""


def load_dataset(data: Data) -> Dataset:
    """Return training and held-out examples; no content is on both sides. Raise SpecError when they can't be had."""
    revision = fallback_from = None
    name = data.name
    if data.name == SHIPPED_DATA:
        fmt = "messages"
        train = [to_example(row, fmt) for row in generate(SHIPPED_TRAIN, held_out=False)]
        held_out = [to_example(row, fmt) for row in generate(SHIPPED_HELD_OUT, held_out=True)]
    else:
        source = Path(data.name)
        if not source.exists():
            if source.suffix in DATA_SUFFIXES or data.name.startswith((".", "/", "~")) or data.name.count("/") != 1:
                raise SpecError(
                    f"data.name = {data.name!r}: no such file; give a {', '.join(DATA_SUFFIXES)} file, a hub id (owner/name), or {SHIPPED_DATA}"
                )
            got = download_dataset(data.name, revision=data.revision)
            source, name, revision, fallback_from = got.folder, got.id, got.commit, got.fallback_from
        fmt = data.format
        examples = load_examples(source, fmt)
        train, held_out = split(examples, max(data.eval_examples, 1), data.seed)
    if not train or not held_out:
        raise SpecError(f"data.name = {data.name!r}: {len(train)} training and {len(held_out)} held-out examples; add distinct rows")
    content = json.dumps([[e.text, e.messages] for e in (*train, *held_out)], sort_keys=True)
    train = train[: data.train_examples]
    record: dict[str, str | int | bool | None] = {
        "name": name,
        "format": fmt,
        "revision": revision,
        "fallback_from": fallback_from,
        "content_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "train_examples": len(train),
        "held_out_examples": len(held_out),
    }
    return Dataset(train, held_out, record)
