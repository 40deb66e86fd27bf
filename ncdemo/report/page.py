"""Runs to one HTML page: what each section gets to show. The look is report.html.j2 and report.css."""

from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from ncdemo.report import tables
from ncdemo.report.bench_plots import latency_plots, throughput_plots
from ncdemo.report.cards import headline
from ncdemo.report.fairness import AGREEMENT_FLOOR, MIN_REPEATS
from ncdemo.report.figure import DASHES
from ncdemo.report.frontier_plots import frontier_plots
from ncdemo.report.gpu_health import notes
from ncdemo.report.machine_panels import machines
from ncdemo.report.measured import so_far
from ncdemo.report.node_table import by_node
from ncdemo.report.read import Run
from ncdemo.report.show import duration, number, printable
from ncdemo.report.telemetry_plots import telemetry_plot
from ncdemo.report.train_plots import train_plots
from ncdemo.spec.agreement import AGREEMENT_TOKENS
from ncdemo.spec.result_bench import BenchResult

STATUS = {"finished": "✓", "failed": "✕", "interrupted": "!", "running": "…", "unknown": "?"}


def render(runs: list[Run]) -> str:
    """Return the page. Equal runs give equal text: it holds no clock and no path of the machine."""
    label(runs)
    colours = assign_colours(runs)
    trained = [run for run in runs if run.kind == "train"]
    benches = [run for run in runs if run.kind == "bench"]
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return page.get_template("report.html.j2").render(
        title=runs[0].label if len(runs) == 1 else f"{len(runs)} runs",
        runs=[status(run) for run in runs],
        cards=headline(runs, colours),
        trained=[(run.label, colours[run.label] % 8, None) for run in trained],
        train_plots=train_plots(trained, colours),
        training=tables.training(trained),
        train_differences=tables.spec_differences(trained) if len(trained) > 1 else [],
        benches=[bench(run, colours) for run in benches],
        bench_differences=tables.spec_differences(benches) if len(benches) > 1 else [],
        bench_labels=[run.label for run in benches],
        prompts_differ=len({run.prompt_hash for run in benches if run.prompt_hash}) > 1,
        telemetry=[timeline(run, colours) for run in runs],
        environment=tables.environment(runs),
        labels=[run.label for run in runs],
        reproduce=[reproduce(run) for run in runs],
        min_repeats=MIN_REPEATS,
        agreement_tokens=AGREEMENT_TOKENS,
        agreement_floor=f"{AGREEMENT_FLOOR * 100:g} %",
    )


def label(runs: list[Run]) -> None:
    """Name runs by their spec's name, by run id where names repeat, with a number where even those repeat."""
    names = [run.record.name if run.record else str(run.spec.get("name") or run.folder) for run in runs]
    ids = [run.record.run_id if run.record else run.folder for run in runs]
    used: dict[str, int] = {}
    for run, name, identity in zip(runs, names, ids, strict=True):
        text = printable(name if names.count(name) == 1 else identity)
        used[text] = used.get(text, 0) + 1
        run.label = text if used[text] == 1 else f"{text} ({used[text]})"


def assign_colours(runs: list[Run]) -> dict[str, int]:
    """Give each training run and each engine one colour for the whole page; the first of either kind has a solid line."""
    trained = [run.label for run in runs if run.kind == "train"]
    engines = [cell.subject for run in runs for cell in run.measured]
    engines += [key.subject for run in runs for key in run.cells]
    first = -(-len(trained) // len(DASHES)) * len(DASHES)
    return {engine: first + i for i, engine in enumerate(dict.fromkeys(engines))} | {name: i for i, name in enumerate(trained)}


def status(run: Run) -> dict[str, Any]:
    record = run.record
    state = record.status if record else "unknown"
    reason = record.reason if record else "No readable result.json: the run was killed before it could say how it ended."
    if record and record.status == "running":
        reason = record.reason or "The record still says running: the run goes on, or was killed without a word."
    return {
        "label": run.label,
        "kind": {"train": "training", "bench": "benchmark", None: "kind unknown"}[run.kind],
        "status": state,
        "sign": STATUS[state],
        "reason": reason,
        "run_id": record.run_id if record else run.folder,
        "started": record.started_at if record else None,
        "duration": duration(record.duration_s) if record and record.duration_s is not None else None,
        "spec_hash": record.spec_hash if record else None,
        "commit": commit(run.environment),
        "problems": run.problems + diverged(run),
    }


def diverged(run: Run) -> list[str]:
    """Say that steps have a loss which is not a number: the curve has a gap there."""
    bad = ~np.isfinite(run.steps["loss"])
    if not bad.any():
        return []
    return [f"{bad.sum()} of {len(bad)} steps have no finite loss, the first at step {number(float(run.steps['step'][bad][0]))}."]


def bench(run: Run, colours: dict[str, int]) -> dict[str, Any]:
    result = run.record.bench if run.record else None
    found = run.measured
    repeats = min((len({c.repeat for c in found if c.subject == engine}) for engine in {c.subject for c in found}), default=0)
    engines = list(dict.fromkeys([c.subject for c in found] + [key.subject for key in run.cells]))
    rows = tables.cells(run, colours)
    return {
        "label": run.label,
        "engines": [(engine, colours[engine] % 8, _version(run, engine.split()[0])) for engine in engines],
        "unfinished": None if run.whole else so_far(len(found), run.planned),
        "summed": result is not None,
        "latencies": [name for _, name in tables.latencies(run)],
        "plots": throughput_plots(run, colours) + frontier_plots(found, result.searches if result else [], colours),
        "distributions": latency_plots(run, colours),
        "searches": tables.searches(run),
        "costs": tables.costs(run),
        "cells": rows,
        "exact": any(row["exact"] for row in rows),
        "models": len({row["model"] for row in rows}),
        "model": rows[0]["model"] if len({row["model"] for row in rows}) == 1 else None,
        "flagged": sum(bool(row["flags"]) for row in rows),
        "repeats": repeats,
        "comparisons": tables.comparisons(run),
        "failures": tables.failures(run),
        "load_times": [(name, duration(seconds)) for name, seconds in result.load_time_s.items()] if result else [],
        "prompts": _prompts(result) if result else None,
    }


def _version(run: Run, engine: str) -> str | None:
    """Return an engine's version and what was appended to its server's command."""
    args = run.record.bench.server_args if run.record and run.record.bench else run.spec.get("server_args")
    words = args.get(engine) or () if isinstance(args, dict) else ()
    return " ".join(filter(None, (run.versions.get(engine), *map(str, words)))) or None


def _prompts(result: BenchResult) -> str:
    found = f"{number(result.prompt_tokens)} prompt tokens, hash {result.prompt_hash[:12]}"
    rows = result.prompt_rows
    if rows and rows.skipped:
        left_out = ", ".join(f"{count} {kind}" for kind, count in rows.skipped.items())
        found += f"; {number(rows.used)} of {number(rows.read)} rows read were used, skipped: {left_out}"
    return found


def timeline(run: Run, colours: dict[str, int]) -> dict[str, Any]:
    known = machines(run)
    engines = list(dict.fromkeys(key.subject for key in run.cells))
    return {
        "label": run.label,
        "plot": telemetry_plot(run, colours),
        "samples": sum(telemetry.count for telemetry in known.values()),
        "gpus": sum(len(telemetry.gpus) for telemetry in known.values()),
        "nodes": len(known),
        "missed": sum(telemetry.missed for telemetry in known.values()),
        "by_node": by_node(run) if run.nodes else None,
        "notes": _notes(run),
        "engines": [(engine, colours[engine] % 8) for engine in engines],
    }


def _notes(run: Run) -> list[str]:
    """Return what went wrong with GPUs, of a run on several nodes with the node."""
    return [f"Node {node}: {note}" if run.nodes else note for node, telemetry in machines(run).items() for note in notes(telemetry)]


def reproduce(run: Run) -> dict[str, Any]:
    sha = commit(run.environment)
    section = run.spec.get("train")
    train = section if isinstance(section, dict) else {}
    command = {"train": f"ncdemo train {train.get('strategy', 'accelerate')} -c spec.yaml", "bench": "ncdemo bench run -c spec.yaml"}
    return {
        "label": run.label,
        "commit": sha,
        "dirty": run.environment.get("git_dirty") is True,
        "command": command.get(run.kind or ""),
        "spec": run.spec_text,
    }


def commit(environment: dict[str, Any]) -> str | None:
    """Find the git commit wherever the environment keeps it: a key git_commit, or commit below a key git."""
    for key, value in environment.items():
        if key in ("git_commit", "commit") and isinstance(value, str):
            return value
        if isinstance(value, dict) and (found := commit(value)):
            return found
    return None
