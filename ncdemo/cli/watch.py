"""`ncdemo watch`: a run as it goes, on one screen, from nothing but its folder; it neither slows the run nor touches it."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

# Nothing of ncdemo.spec is imported here: it would cost `--help` a quarter of a second.
if TYPE_CHECKING:
    from rich.console import Console

    from ncdemo.report.watched import Watched


@click.command("watch")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print one screen and end.")
@click.option("--every-s", default=1.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Between two looks.")
def command(run: Path | None, once: bool, every_s: float) -> None:
    """Follow a run until it ends [default: the newest under way in runs/, else the newest]; exit 0 when it is finished, else 1.

    Where the output is no terminal, a line is printed whenever there is something new.
    """
    from rich.console import Console

    from ncdemo.cli.watch_screen import screen, status
    from ncdemo.report.watched import Watched

    watched = Watched(run or _newest())
    watched.update()
    console = Console(highlight=False, markup=False)
    if once:
        console.print(screen(watched))
        return
    if console.is_terminal:
        _live(watched, console, every_s)
    else:
        _lines(watched, every_s)
        if status(watched) != "finished":
            console.print(screen(watched))
    if status(watched) != "finished":
        sys.exit(1)


def _live(watched: "Watched", console: "Console", every_s: float) -> None:
    from rich.live import Live

    from ncdemo.cli.watch_screen import screen

    # No thread redraws it: the screen is made when there has been a look.
    with Live(screen(watched), console=console, auto_refresh=False) as live:
        while watched.running and not watched.gone:
            time.sleep(every_s)
            watched.update()
            live.update(screen(watched), refresh=True)


def _lines(watched: "Watched", every_s: float) -> None:
    from ncdemo.cli.watch_screen import line

    shown = None
    while True:
        mark = (watched.record, watched.done, watched.progress_s, len(watched.cells), watched.gone)
        if mark != shown:
            click.echo(line(watched))
            shown = mark
        if not watched.running or watched.gone:
            return
        time.sleep(every_s)
        watched.update()


def _newest() -> Path:
    """Return the run that began last of those under way; where none is, the one that ended last."""
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.paths import runs_dir

    found = sorted(runs_dir().glob("*/result.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    if not found:
        raise SpecError(f"{runs_dir()}: holds no run yet; give the folder of one")
    return next((path.parent for path in found if _lives(path.parent)), found[0].parent)


def _lives(folder: Path) -> bool:
    """Say whether a run is under way: its process lives or, where that can't be said (another machine), it wrote something lately."""
    from ncdemo.report.watched import SILENT_S, Watched
    from ncdemo.spec.run_folder import running_process

    if b'"running"' not in (folder / "result.json").read_bytes()[:4096]:
        return False
    try:
        return running_process(folder) is not None
    except ValueError:
        watched = Watched(folder)
        watched.update()
        return watched.running and watched.silent_s < SILENT_S
