"""The shipped task: a request in plain English in, the ncdemo job as YAML out.

A generator instead of a file: thousands of distinct examples without a download, and every answer is a valid spec (a
test loads them all), so exact match and field accuracy measure whether the model learnt ncdemo's own job language.

    python -m workloads.data.jobs_task --count 3        # look at some
"""

import hashlib
import random
from typing import Any

import yaml

SYSTEM = "Write the ncdemo job."
MODELS = (
    "smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-1.7B", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B",
    "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.1-8B", "google/gemma-3-1b-it", "microsoft/phi-4",
)  # fmt: skip
DATA = ("ncdemo-jobs", "philschmid/guanaco-belle-7b", "tatsu-lab/alpaca", "data/support.jsonl", "data/sql.jsonl", "data/chat.parquet")

# Each field: where it stands in the spec, its values, and ways to ask for it. {} is the value as people write it.
Field = tuple[str, tuple[Any, ...], tuple[str, ...]]

LORA_RANK: Field = ("train.lora.r", (4, 8, 32, 64, 128), ("rank {}", "LoRA rank {}", "r={}"))
TRAIN_FIELDS: tuple[Field, ...] = (
    ("data.max_seq_len", (256, 512, 1024, 2048, 4096, 8192), ("sequences of {} tokens", "sequence length {}", "cut at {} tokens")),
    ("data.packing", (False,), ("no packing", "don't pack", "packing off")),
    ("train.processes", (2, 4, 8), ("on {} GPUs", "{} processes", "use {} GPUs")),
    ("train.max_steps", (20, 50, 80, 100, 150, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000), ("for {} steps", "{} steps", "stop after {} steps")),
    ("train.micro_batch_size", (2, 4, 8, 16, 32), ("micro batch {}", "micro batch size {}", "{} rows per forward pass")),
    ("train.learning_rate", (0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001), ("learning rate {}", "lr {}", "at lr {}")),
    ("train.precision", ("bf16", "fp32"), ("in {}", "{} precision", "use {}")),
    ("train.seed", (1, 2, 3, 7, 13, 42, 123, 2026), ("seed {}", "seed it with {}", "random seed {}")),
    ("eval.every_steps", (5, 10, 25, 40, 50, 60), ("evaluate every {} steps", "eval each {} steps", "held-out loss every {} steps")),
    ("checkpoint.every_steps", (10, 30, 75, 125, 500), ("save every {} steps", "checkpoint every {} steps", "a checkpoint each {} steps")),
)  # fmt: skip

SECTIONS = (
    "kind", "model", "data", "train", "eval", "checkpoint",
    "models", "engines", "concurrency", "prompts", "sampling", "repeats", "precision",
)  # fmt: skip
BENCH_FIELDS: tuple[Field, ...] = (
    ("concurrency", ((1,), (4,), (8,), (16,), (32,), (1, 8), (1, 16), (4, 16), (8, 32), (1, 4, 16), (1, 8, 64)),
     ("concurrency {}", "{} requests at once", "{} in flight")),
    ("prompts.count", (8, 24, 32, 48, 64, 100, 128, 200, 256, 500), ("{} prompts", "with {} prompts", "send {} requests")),
    ("sampling.max_new_tokens", (16, 32, 48, 96, 128, 256, 512), ("{} new tokens", "generate {} tokens", "outputs of {} tokens")),
    ("sampling.temperature", (0.2, 0.5, 0.7, 0.8, 1.0), ("temperature {}", "temp {}", "sample at temperature {}")),
    ("repeats", (2, 3, 4, 5, 6, 10), ("{} repeats", "repeat {} times", "measure {} times")),
    ("precision", ("bf16", "fp32"), ("in {}", "{} precision", "use {}")),
)  # fmt: skip

TRAIN_OPENINGS = {"full": ("Fine-tune", "Train", "Tune"), "lora": ("LoRA", "Train LoRA adapters", "Adapt with LoRA")}
BENCH_OPENINGS = ("Benchmark", "Measure", "Test the speed")
ENGINES = (("vllm",), ("transformers", "vllm"), ("vllm", "transformers"), ("echo",), ("echo", "vllm"))


def job_example(rng: random.Random) -> dict[str, Any]:
    """Return one chat example, {"messages": [system, user, assistant]}; the assistant's turn is a valid spec in YAML."""
    # Most requests name one to three things and some write out a whole job, so the lengths have a long tail.
    wanted = rng.randint(6, 9) if rng.random() < 0.08 else rng.choice((1, 1, 2, 2, 3))
    job, request = _train_job(rng, wanted) if rng.random() < 0.6 else _bench_job(rng, wanted)
    roles = (("system", SYSTEM), ("user", request), ("assistant", job_yaml(job)))
    return {"messages": [{"role": role, "content": content} for role, content in roles]}


def job_yaml(job: dict[str, Any]) -> str:
    """Write a job in its one canonical form: a line per section, numbers as decimals."""
    lines = []
    for key, value in job.items():
        text = yaml.dump({key: value}, Dumper=_Dumper, default_flow_style=True, width=10_000, sort_keys=False).strip()
        lines.append(text[1:-1])  # the braces around the one key
    return "\n".join(lines)


class _Dumper(yaml.SafeDumper):
    """Floats as decimals, since YAML's 1.0e-05 is hard to read."""


_Dumper.add_representer(float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", _decimal(value)))


def generate(count: int, *, held_out: bool, seed: int = 0) -> list[dict[str, Any]]:
    """Return `count` distinct examples of one side of the split.

    A job belongs to a side by the hash of its answer, so no held-out job, in whatever words, is ever trained on.
    """
    rng = random.Random(f"ncdemo-jobs {'held-out' if held_out else 'train'} {seed}")
    seen: set[str] = set()
    out: list[dict[str, Any]] = []
    while len(out) < count:
        example = job_example(rng)
        answer = example["messages"][-1]["content"]
        if is_held_out(answer) != held_out or answer in seen:
            continue
        seen.add(answer)
        out.append(example)
    return out


def is_held_out(answer: str) -> bool:
    """Say on which side of the split a job stands: one in eight is held out."""
    return hashlib.sha256(answer.encode()).digest()[0] % 8 == 0


def _train_job(rng: random.Random, wanted: int) -> tuple[dict[str, Any], str]:
    method = rng.choice(("full", "lora"))
    job: dict[str, Any] = {"kind": "train"}
    opening = rng.choice(TRAIN_OPENINGS[method])
    if rng.random() < 0.35:
        model = rng.choice(MODELS)
        job["model"] = {"name": model}
        opening += f" {rng.choice(('of', 'for'))} {model}" if method == "lora" else f" {model}"
    if rng.random() < 0.35:
        data = rng.choice(DATA)
        job["data"] = {"name": data}
        opening += f" {rng.choice(('on', 'with', 'using'))} {data}"
    fields = TRAIN_FIELDS
    if method == "lora":
        job["train"] = {"method": "lora"}
        fields = (LORA_RANK, *fields)
    chosen = rng.sample(fields, min(wanted, len(fields)))
    return _fill(job, opening, chosen, fields, rng)


def _bench_job(rng: random.Random, wanted: int) -> tuple[dict[str, Any], str]:
    job: dict[str, Any] = {"kind": "bench"}
    opening = rng.choice(BENCH_OPENINGS)
    if rng.random() < 0.35:
        model = rng.choice(MODELS)
        job["models"] = [{"name": model}]
        opening += f" {rng.choice(('of', 'with'))} {model}"
    if rng.random() < 0.35:
        engines = rng.choice(ENGINES)
        job["engines"] = list(engines)
        opening += f" on {' and '.join(engines)}"
    return _fill(job, opening, rng.sample(BENCH_FIELDS, min(wanted, len(BENCH_FIELDS))), BENCH_FIELDS, rng)


def _fill(
    job: dict[str, Any], opening: str, chosen: list[Field], order: tuple[Field, ...], rng: random.Random
) -> tuple[dict[str, Any], str]:
    """Ask in any order; answer in the spec's order."""
    values = {key: rng.choice(choices) for key, choices, _ in chosen}
    request = ", ".join([opening, *(rng.choice(phrases).format(_spoken(values[key])) for key, _, phrases in chosen)])
    for key, _, _ in order:
        if key in values:
            *sections, last = key.split(".")
            here = job
            for section in sections:
                here = here.setdefault(section, {})
            here[last] = list(values[key]) if isinstance(values[key], tuple) else values[key]
    top = [key for key in SECTIONS if key in job]
    return {key: job[key] for key in top}, request + "."


def _spoken(value: Any) -> str:
    if isinstance(value, tuple):
        return " and ".join(map(str, value))
    return _decimal(value) if isinstance(value, float) else str(value)


def _decimal(value: float) -> str:
    text = f"{value:.10f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    for example in generate(args.count, held_out=args.held_out):
        print(example["messages"][1]["content"], example["messages"][2]["content"], sep="\n", end="\n\n")
