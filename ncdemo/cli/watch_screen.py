"""What `ncdemo watch` draws: one screen of a run for a terminal, or one line of it for a file."""

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

from ncdemo.cli.watch_gpus import GpuTable, gpu_line
from ncdemo.report.show import duration, ms, number, percent, printable, size
from ncdemo.report.watched import Watched
from ncdemo.spec.ledger import usual_s
from ncdemo.spec.result_bench import first_token

BLOCKS = "▁▂▃▄▅▆▇█"
COLOURS = {"running": "cyan", "finished": "green", "failed": "red", "interrupted": "yellow", "gone": "red"}
CURVE, BAR = 48, 48
CELLS, LOG_LINES = 8, 6
Rows = Iterator[tuple[str, str]]


def status(run: Watched) -> str:
    return "unreadable" if run.record is None else "gone" if run.gone else run.record.status


def screen(run: Watched) -> Any:
    """Return the screen for rich to print."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    kind = run.record.kind if run.record else "run"
    colour = COLOURS.get(status(run), "")
    parts: list[Any] = [
        Text.assemble((run.folder.resolve().name, "bold"), f"  {kind}  ", (status(run), colour), f"  {duration(run.age_s)}")
    ]
    if why := reason(run):
        parts.append(Text(why, style=colour))
    bar = [ProgressBar(total=run.total, completed=min(run.done, run.total), width=BAR)] if run.total else []
    drawn = Table.grid(padding=(0, 2))
    drawn.add_row(*bar, Text(progress(run)))
    parts.append(drawn)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for name, value in (*figures(run), *machines(run)):
        facts.add_row(name, Text(value))
    parts.append(facts)
    if any(node.sample.get("gpus") for node in run.machines.values()):
        parts.append(GpuTable(run))
    if run.cells:
        parts.append(_cells(list(run.cells.values())[-CELLS:]))
    parts += [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in run.log(LOG_LINES)]
    return Group(*parts)


def line(run: Watched) -> str:
    """Return a line for a terminal that isn't one."""
    now = datetime.datetime.now().strftime("%H:%M:%S")
    parts = [now, status(run), progress(run), *(f"{name} {value}" for name, value in figures(run, curve=False))]
    return "  ".join([*parts, *(f"{name} {value}" for name, value in machines(run)), *gpu_line(run)])


def reason(run: Watched) -> str | None:
    """Say why a run ended, where it isn't by being finished."""
    if run.gone:
        return f"It says it runs, but wrote nothing for {duration(run.silent_s)}: it was killed, or its machine is gone."
    return printable(run.record.reason) if run.record and run.record.reason else None


def progress(run: Watched) -> str:
    unit = "cells" if run.record and run.record.kind == "bench" else "steps"
    of = f" of {run.total:,}" if run.total else ""
    left = f", {duration(run.left_s)} left" if run.left_s else ""
    return f"{run.done:,}{of} {unit}{left}"


def figures(run: Watched, *, curve: bool = True) -> Rows:
    """Yield what it has come to: a training run's last step, a benchmark's requests."""
    if run.step:
        yield "loss", number(run.step.get("loss")) + (f"  {sparkline(run.losses)}" if curve and len(run.losses) > 1 else "")
        yield "tokens/s", number(run.step.get("tokens_per_s"), 3)
        if run.step.get("mfu") is not None:
            yield "MFU", percent(run.step["mfu"])
        if curve:
            rates = f"{number(run.step.get('learning_rate'), 3)}, gradient norm {number(run.step.get('grad_norm'), 3)}"
            yield "learning rate", rates
    if run.evals:
        first, last = (number(run.evals[which].get("loss")) for which in ("first", "last"))
        yield "held-out loss", first if first == last else f"{first} -> {last}"
    if curve and run.cell:
        usual = usual_s(run.cell, run.cell_s)
        since = "since the last one ended" if run.cells else "since the start"
        yield "cell", f"{run.cell}, {duration(run.since_cell_s)} {since}" + (f"; its other repeats took {duration(usual)}" if usual else "")
    for engine, counts in run.requests.items():
        yield f"{engine} requests", f"{counts[True]:,}" + (f", {counts[False]:,} failed" if counts[False] else "")
    if run.running:
        for engine, said in run.engines.items():
            if queue := ", ".join(_queue(said)):
                yield f"{engine} engine", queue
    if run.running and run.output_tokens_per_s:
        yield "output tokens/s", f"{number(run.output_tokens_per_s, 3)} (last 30 s)" if curve else number(run.output_tokens_per_s, 3)


def _queue(said: dict[str, Any]) -> Iterator[str]:
    """Yield what an engine said of itself when it was last asked."""
    for name, words in (("running", "running"), ("waiting", "waiting")):
        if said.get(name) is not None:
            yield f"{number(said[name], 3)} {words}"
    if said.get("kv_cache_used") is not None:
        yield f"key-value cache {percent(said['kv_cache_used'])}"


def machines(run: Watched) -> Rows:
    """Yield what each machine does, of a run on several nodes a row each; and which nodes aren't here."""
    if len(run.machines) == 1 and not run.elsewhere:
        yield from machine(run.sample)
        return
    for rank, node in run.machines.items():
        does = [f"{name} {value}" for name, value in machine(node.sample)]
        if run.running and not run.gone and node.unsampled_s > run.patience_s:
            does.append(f"no sample for {duration(node.unsampled_s)}")
        yield f"node {rank}", "; ".join(does) or "no sample yet"
    if run.elsewhere:
        yield _named(run.elsewhere), "not here while it goes on: the samples lie on the node, and come with the results"


def _named(nodes: Sequence[int]) -> str:
    if len(nodes) > 2 and nodes[-1] - nodes[0] < len(nodes):
        return f"nodes {nodes[0]} to {nodes[-1]}"
    return f"node{'s' * (len(nodes) > 1)} {', '.join(map(str, nodes))}"


def machine(sample: dict[str, Any]) -> Rows:
    if sample.get("cpu_pct") is not None:
        cores = sample.get("process_cpu_pct")
        yield "CPU", percent(sample["cpu_pct"] / 100) + (f", the run {number(cores / 100, 2)} cores" if cores is not None else "")
    if sample.get("memory_used_bytes") is not None:
        own = sample.get("process_rss_bytes")
        yield "memory", size(sample["memory_used_bytes"]) + (f", the run {size(own)}" if own is not None else "")


def _cells(cells: Sequence[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("engine", "load", "repeat"):
        table.add_column(name)
    for name in ("tokens/s", "TTFT p50", "TPOT p50", "goodput", "failed"):
        table.add_column(name, justify="right")
    for cell in cells:
        load = str(cell.get("setting") or f"concurrency {cell.get('concurrency')}")
        ttft, tpot = (ms((cell.get(name) or {}).get("p50")) for name in (first_token(cell.get("concurrency")), "tpot_s"))
        engine = " ".join(filter(None, (str(cell.get("engine")), cell.get("variant"))))
        speed, goodput = number(cell.get("output_tokens_per_s"), 3), number(cell.get("goodput_rps"), 3)
        table.add_row(engine, load, str(cell.get("repeat")), speed, ttft, tpot, goodput, str(cell.get("failed")))
    return table


def sparkline(values: Sequence[float], width: int = CURVE) -> str:
    """Draw values as blocks, each the mean of what falls into it; the lowest and highest of these are the edges."""
    count = min(width, len(values))
    means = [sum(part) / len(part) for i in range(count) if (part := values[i * len(values) // count : (i + 1) * len(values) // count])]
    low, span = min(means), max(means) - min(means)
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((mean - low) / span * len(BLOCKS)))] if span else BLOCKS[0] for mean in means)
