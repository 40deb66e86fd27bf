"""The page of the command line, from the tree of click commands."""

import inspect
from collections.abc import Iterator

import click

from ncdemo.cli import cli
from scripts.reference.markdown import anchor, page, table


def cli_page() -> str:
    """Return every command with its arguments and options, in the order of --help."""
    found = list(commands(cli, click.Context(cli, info_name="ncdemo")))
    tree = "\n".join(
        f"{'  ' * (path.count(' ') - 1)}- [`{path}`]({anchor(path)}): {one.get_short_help_str(150)}" for path, one, _ in found[1:]
    )
    intro = (
        "Every command takes `-h` and `--help`. Data is printed to stdout, everything else to stderr. The exit code is 0 on success, 1 where "
        "something failed, 2 for a mistake in what was written (one line says where, and what to do), 130 after Ctrl-C; those of `jobs wait` "
        "are in [jobs](../jobs.md)."
    )
    return page("Command line", intro, tree, *(command(*one) for one in found))


def commands(found: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield (words, command, context) of every command below one, that one first."""
    yield context.command_path, found, context
    if isinstance(found, click.Group):
        for name in found.list_commands(context):
            below = found.get_command(context, name)
            assert below is not None
            yield from commands(below, click.Context(below, info_name=name, parent=context))


def command(path: str, found: click.Command, context: click.Context) -> str:
    """Return a command's section; its help's paragraphs as they are."""
    usage = f"    {path} {' '.join(found.collect_usage_pieces(context))}"
    rows = [(f"`{left}`", right) for left, right in options(found, context)]
    text = "\n\n".join(" ".join(one.split()) for one in inspect.cleandoc(found.help or "").split("\n\n"))
    return "\n\n".join(filter(None, [f"## {path}", text, usage, table(("option", "meaning"), rows) if rows else ""]))


def options(found: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield (names, meaning) of every option but --help; arguments stand in the usage alone."""
    for parameter in found.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record and "--help" not in parameter.opts:
            yield record
