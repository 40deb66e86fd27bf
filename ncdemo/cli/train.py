"""`ncdemo train`: fine-tune as a spec says, on this machine."""

import os
import shutil
from pathlib import Path

import click

from ncdemo.cli.launch import Launch, follow, new_run_folder, python_module
from ncdemo.cli.options import spec_options
from ncdemo.spec import TrainSpec, load_spec


def train_launch(spec: TrainSpec, folder: Path) -> Launch:
    """Return the launch of a training run: one process, or one rank per GPU or per share of the cores."""
    on_gpu = shutil.which("nvidia-smi") is not None
    n = spec.train.processes
    # Without these the launcher asks a config file in the user's home, and falls back to one process in silence.
    args = ["--num_processes", str(n), "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    args += ["--multi_gpu", "--main_process_port", "0"] if n > 1 else []
    threads = max(1, (os.cpu_count() or 1) // n)
    env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)), "TOKENIZERS_PARALLELISM": "false"}
    if not on_gpu:
        env["ACCELERATE_USE_CPU"] = "true"
    command = python_module("accelerate.commands.launch", *args, "-m", "workloads.training.accelerate", "--run", str(folder))
    return Launch(folder, spec, command, env)


@click.group("train")
def command() -> None:
    """Fine-tune a model as a spec says."""


@command.command()
@spec_options
@click.option("--nproc", type=click.IntRange(min=1), help="Processes on this machine; the same as --set train.processes=N.")
def accelerate(config: str, overrides: tuple[str, ...], dry_run: bool, nproc: int | None) -> None:
    """Fine-tune with Hugging Face Accelerate. Prints the run's folder."""
    if nproc is not None:
        overrides = (*overrides, f"train.processes={nproc}")
    spec = load_spec(config, TrainSpec, overrides)
    follow(train_launch(spec, new_run_folder(spec.name)), dry_run)
