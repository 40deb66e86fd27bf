"""`ncdemo spec`: check a spec without running it, and print JSON schemas for editors."""

import json

import click

# Those of ncdemo.spec.SPECS, which would cost `--help` a quarter of a second.
KINDS = ("train", "bench", "stack")


@click.group("spec")
def command() -> None:
    """Check specs and print their JSON schemas."""


@command.command()
@click.argument("kind", type=click.Choice(KINDS))
def schema(kind: str) -> None:
    """Print the JSON schema of one kind of spec."""
    from ncdemo.spec import SPECS

    click.echo(json.dumps(SPECS[kind].model_json_schema(), indent=2))


@command.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("file")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, e.g. --set train.max_steps=20.")
def check(kind: str, file: str, overrides: tuple[str, ...]) -> None:
    """Check a spec, and print it with every default filled in."""
    from ncdemo.spec import SPECS, dump_spec, load_spec
    from ncdemo.spec.stack_file import load_stack

    spec = load_stack(file, overrides).spec if kind == "stack" else load_spec(file, SPECS[kind], overrides)
    click.echo(dump_spec(spec), nl=False)
