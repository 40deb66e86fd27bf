"""The command line: goldens of every --help, one clear line for every mistake, and dry runs that start nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ncdemo.cli import cli

GOLDEN = Path(__file__).parent.parent / "golden" / "help"


def every_command(found: click.Command, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Yield the words of every command below one, that one first."""
    yield list(path)
    if isinstance(found, click.Group):
        context = click.Context(found)
        for name in found.list_commands(context):
            yield from every_command(found.get_command(context, name), (*path, name))


HELP = list(every_command(cli))


def ncdemo(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ncdemo", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "100", **env}, timeout=120)


@pytest.mark.parametrize("command", HELP, ids=lambda c: " ".join(c) or "ncdemo")
def test_help_is_the_golden_one(command: list[str]) -> None:
    """Renew with: NCDEMO_RENEW=1 pytest tests/cli"""
    shown = ncdemo(*command, "--help").stdout
    golden = GOLDEN / f"{'-'.join(command) or 'ncdemo'}.txt"
    if os.environ.get("NCDEMO_RENEW"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(shown)
    assert shown == golden.read_text()


def test_every_golden_is_of_a_command() -> None:
    assert {golden.stem for golden in GOLDEN.glob("*.txt")} == {"-".join(c) or "ncdemo" for c in HELP}
    assert len(HELP) > 30


# What a --help may not wait for: pydantic's models of the specs alone are a quarter of a second, on a bar of 200 ms.
SLOW = {"pydantic", "rich", "httpx", "pulumi", "azure", "matplotlib", "numpy", "torch", "kubernetes", "fsspec", "jinja2"}
IMPORTS = """
import importlib, json, sys
from ncdemo.cli import COMMANDS
found = {}
for name, (module, _) in COMMANDS.items():
    before = set(sys.modules)
    importlib.import_module(module)
    found[name] = sorted({one.split('.')[0] for one in set(sys.modules) - before})
print(json.dumps(found))
"""


def test_no_help_waits_for_the_specs_or_a_large_library() -> None:
    """--help imports its command's module and no other: a subcommand's help is made of the same one."""
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60)
    found = json.loads(done.stdout)
    assert len(found) > 10
    assert {name: sorted(SLOW & set(modules)) for name, modules in found.items() if SLOW & set(modules)} == {}


def test_the_choices_of_commands_are_those_of_the_specs() -> None:
    from ncdemo.cli.image import TAGS
    from ncdemo.cli.spec import KINDS
    from ncdemo.spec import SPECS
    from ncdemo.spec.images import IMAGES

    assert tuple(SPECS) == KINDS
    assert tuple(IMAGES) == TAGS


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], r"no command 'trian'; did you mean train\? commands: demo, train"),
        (["train", "accelerate"], r"Missing option '-c'"),
        (["train", "accelerate", "-c", "no.yaml"], r"Error: no\.yaml: no such file"),
        (["train", "accelerate", "-c", "{config}", "--set", "train.max_step=2"], r"Error: --set train\.max_step.*did you mean max_steps"),
        (["train", "accelerate", "-c", "{config}", "--set", "train.max_steps"], r"Error: --set train\.max_steps: must be KEY=VALUE"),
        (["train", "accelerate", "-c", "{config}", "--nproc", "0"], r"--nproc.*0 is not in the range"),
        (["bench", "run", "-c", "{config}"], r"kind = 'train'"),
        (["report", "nowhere"], r"Error: .*nowhere"),
        (["metrics", "export", "nowhere", "--gateway", "http://h"], r"Error: nowhere: is not a run directory"),
        (["metrics", "export", "nowhere", "--gateway", "h"], r"Error: pushgateway = 'h': must be an address such as"),
        (["metrics", "send"], r"Error: no Pushgateway is named; give --gateway"),
        (["spec", "schema", "nope"], r"'nope' is not one of"),
        (["demo", "--resume", "nowhere"], r"nowhere.*does not exist"),
    ],
    ids=lambda a: " ".join(a)[:40] if isinstance(a, list) else "",
)
def test_mistakes_are_one_clear_line(args: list[str], message: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("kind: train\n")
    done = ncdemo(*[a.format(config=config) for a in args], NCDEMO_RUNS=str(tmp_path / "runs"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_benchmarks_dry_run_lists_cells_the_least_time_and_its_cost() -> None:
    done = ncdemo("bench", "run", "-c", "workloads/configs/inference/server.yaml", "--set", "repeats=1", "--dry-run")
    assert "# 6 cells of 64 requests" in done.stdout
    assert "poisson 4 req/s, 512 to 128 tokens | repeat 0 (at least 16 s)" in done.stdout
    # 64/1 + 64/4 + 64/16 seconds
    said = re.search(r"# open loops send for 84 s, ([0-9.]+) USD of Standard_NC40ads_H100_v5 as you go", done.stdout)
    assert said, done.stdout
    assert 0.1 < float(said[1]) < 0.3


def test_dry_runs_print_the_spec_and_command_and_start_nothing(tmp_path: Path) -> None:
    for args in (
        ["train", "accelerate", "-c", "workloads/configs/training/demo.yaml", "--nproc", "2"],
        ["bench", "run", "-c", "workloads/configs/inference/demo.yaml"],
        ["demo"],
    ):
        done = ncdemo(*args, "--dry-run", NCDEMO_RUNS=str(tmp_path / "runs"))
        assert done.returncode == 0, done.stderr
        assert "spec.yaml" in done.stdout
        assert "-m workloads." in done.stdout
        assert not (tmp_path / "runs").exists()
        if "train" in args:
            assert "--multi_gpu" in done.stdout
            assert "processes: 2" in done.stdout


def test_schemas_and_checks() -> None:
    schema = json.loads(ncdemo("spec", "schema", "train").stdout)
    assert schema["properties"]["kind"]["const"] == "train"
    done = ncdemo("spec", "check", "train", "workloads/configs/training/demo.yaml", "--set", "data.seed=7")
    assert "seed: 7" in done.stdout


def test_train_follows_a_run_and_prints_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"name: mini\nmodel: {{name: {tiny_model}}}\ntrain: {{max_steps: 2}}\ndata: {{eval_examples: 4, train_examples: 20}}\n"
    )
    done = ncdemo("train", "accelerate", "-c", str(config), "--set", "telemetry.mlflow_uri=null", NCDEMO_RUNS=str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.parent == tmp_path / "runs"
    assert folder.name.startswith("mini-")
    assert (folder / "log.txt").read_text()
    assert '"finished"' in (folder / "result.json").read_text()
    page = ncdemo("report", str(folder))
    assert page.returncode == 0, page.stderr
    assert Path(page.stdout.strip()).read_text().startswith("<!doctype html>")


def test_a_failed_run_says_why_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("model: {name: /nowhere/at/all}\n")
    done = ncdemo("train", "accelerate", "-c", str(config), "--set", "telemetry.mlflow_uri=null", NCDEMO_RUNS=str(tmp_path / "runs"))
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "model.name = '/nowhere/at/all': cannot be loaded" in last
    assert "log.txt" in last


def test_ctrl_c_ends_the_workload_and_leaves_the_run_readable(tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"model: {{name: {tiny_model}}}\ntrain: {{max_steps: 100000}}\ndata: {{eval_examples: 4, train_examples: 20}}\n")
    command = [sys.executable, "-m", "ncdemo", "train", "accelerate", "-c", str(config), "--set", "telemetry.mlflow_uri=null"]
    process = subprocess.Popen(command, env={**os.environ, "NCDEMO_RUNS": str(tmp_path / "runs")}, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 100
    while not list(tmp_path.glob("runs/*/steps.jsonl")) and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    result = next(tmp_path.glob("runs/*/result.json"))
    assert f"{result.parent}: stopped; go on with: ncdemo jobs retry {result.parent.name}" in errors
    assert '"interrupted"' in result.read_text()
    alive = subprocess.run(["pgrep", "-f", str(result.parent)], capture_output=True, text=True).stdout.split()
    assert alive == []


def test_warnings_of_a_workload_reach_the_user_and_stray_output_does_not_break_progress(tmp_path: Path) -> None:
    from ncdemo.cli.launch import _message, _warnings

    log = tmp_path / "log.txt"
    log.write_text(
        "2026-01-01 00:00:00,1 WARNING workloads.data.download_dataset: used another\n2026 WARNING vllm.x: noise\nINFO ncdemo: fine\n"
    )
    assert _warnings(log) == ["Warning: used another"]
    assert _message('{"phase": "train", "done": 1, "total": 2}') == {"phase": "train", "done": 1, "total": 2}
    assert [_message(line) for line in ("{'loss': 1}", "{}", "[1]", "hello", '{"phase": "x"}')] == [None] * 5
