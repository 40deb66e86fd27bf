"""How far a workload is: bars and a line on a terminal; elsewhere, of long waits alone, a line now and then.

    with progress_bars() as progress:
        progress({"phase": "bench", "done": 0, "total": 8, "state": "loading vllm tiny", "state_s": 31.0, "log": "Loading weights"})

A message with a `state` says what is waited for, for how long, and the last line of the log of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

Progress = Callable[[dict[str, Any]], None]
FIRST_S, AT_MOST_S = 5.0, 60.0
"""Of a wait: the first line comes so late, each further one after as much again, but no later than this after the one before."""
NO_FIGURES = ("phase", "done", "total", "state", "state_s", "log")


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a callback that draws a bar with time left for each phase a workload reports."""
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Drawn(Bars):
        waiting = ""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            if self.waiting:  # a line of its own: it may be long, and is cut where the screen ends
                yield Text(self.waiting, style="dim", no_wrap=True, overflow="ellipsis")

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
               TimeRemainingColumn(), TextColumn("{task.fields[figures]}"))  # fmt: skip
    console, plain = Console(stderr=True), Plain(lambda text: click.echo(text, err=True))
    with Drawn(*columns, console=console, refresh_per_second=4) as drawn:
        tasks: dict[str, TaskID] = {}

        def update(message: dict[str, Any]) -> None:
            phase = message["phase"]
            if phase not in tasks or drawn.tasks[drawn.task_ids.index(tasks[phase])].finished:
                tasks[phase] = drawn.add_task(phase, total=message["total"], figures="")
            figures = "  ".join(f"{k} {v:.4g}" for k, v in message.items() if k not in NO_FIGURES)
            if console.is_terminal:
                drawn.waiting = waiting(message)
            else:
                plain(message)
            drawn.update(tasks[phase], completed=message["done"], total=message["total"], figures=figures)

        try:
            yield update
        finally:
            drawn.waiting = ""


def waiting(message: dict[str, Any]) -> str:
    """Return what is waited for, in a line; empty when nothing is."""
    from ncdemo.report.show import duration

    if not message.get("state"):
        return ""
    return f"{message['state']}, {duration(int(message['state_s']))}" + (f": {message['log']}" if message.get("log") else "")


class Plain:
    """Say what is waited for a few times, however often it is told."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._state, self._waited_s, self._next_s = say, "", 0.0, FIRST_S

    def __call__(self, message: dict[str, Any]) -> None:
        state, waited_s = message.get("state", ""), message.get("state_s", 0.0)
        if state != self._state or waited_s < self._waited_s:
            self._next_s = FIRST_S
        self._state, self._waited_s = state, waited_s
        if state and waited_s >= self._next_s:
            self._say(waiting(message))
            self._next_s = waited_s + min(waited_s, AT_MOST_S)
