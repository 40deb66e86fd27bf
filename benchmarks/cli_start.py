"""How long every `ncdemo ... --help` and `ncdemo doctor` take: the best and the median of ROUNDS, against `python -c pass`.

make bench-cli

CPU time is what the bar of 200 ms is about on a machine with other work; wall time beside it says how busy that was.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from ncdemo.cli import cli

NCDEMO = str(Path(sys.executable).with_name("ncdemo"))
ROUNDS = 5
BAR_MS = 200


def every_command(found: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command below one, that one first."""
    yield path
    if isinstance(found, click.Group):
        context = click.Context(found)
        for name in found.list_commands(context):
            below = found.get_command(context, name)
            assert below is not None
            yield from every_command(below, (*path, name))


def timed(command: tuple[str, ...]) -> tuple[float, float]:
    """Return (CPU, wall) milliseconds of one process."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, os.times()
    # 1: doctor found something; it took as long.
    assert done.returncode in (0, 1), command
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu * 1000, wall * 1000


def main() -> None:
    commands = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "ncdemo doctor": (NCDEMO, "doctor"),
        **{" ".join(("ncdemo", *words, "--help")): (NCDEMO, *words, "--help") for words in every_command(cli)},
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(ROUNDS + 1):  # the first fills the file cache
        for name, words in commands.items():
            times[name].append(timed(words))
    rows = {name: list(zip(*found[1:], strict=True)) for name, found in times.items()}
    for name, (cpu, wall) in sorted(rows.items(), key=lambda row: -min(row[1][0])):
        print(
            f"{name:<34} CPU {min(cpu):4.0f} ms, median {statistics.median(cpu):4.0f}; wall {min(wall):4.0f}, median {statistics.median(wall):5.0f}"
        )
    helps = {name: min(cpu) for name, (cpu, _) in rows.items() if name.endswith("--help")}
    worst = max(helps, key=lambda name: helps[name])
    over = sum(cpu > BAR_MS for cpu in helps.values())
    print(f"{len(helps)} commands; the slowest is {worst} with {helps[worst]:.0f} ms of CPU; over {BAR_MS} ms: {over}")


if __name__ == "__main__":
    main()
