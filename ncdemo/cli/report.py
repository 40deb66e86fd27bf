"""`ncdemo report`: one self-contained page about one or more runs."""

from pathlib import Path

import click


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="The page [default: report.html in the first run].")
def command(runs: tuple[Path, ...], out: Path | None) -> None:
    """Write one HTML page about one or more runs, and print its path."""
    from ncdemo.report import write_report

    click.echo(write_report(runs, out or runs[0] / "report.html"))
