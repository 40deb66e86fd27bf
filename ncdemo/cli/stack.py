"""`ncdemo stack`: look at a stack before it exists, write one, and hand it to the Pulumi CLI."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ncdemo.cli.stack_expire import expire
from ncdemo.cli.stack_new import new

if TYPE_CHECKING:
    from ncdemo.infra.render import Rendered
    from ncdemo.spec.stack_file import Stack

INSTALL = "Download & install Pulumi, pulumi.com/docs/install"
stack_argument = click.argument("stack", metavar="STACK")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, e.g. --set pools.0.max_count=4.")


@click.group("stack")
def command() -> None:
    """Preview, write and deploy stacks: capacity on Azure and the jobs that run there."""


def project() -> Path:
    """Return the folder with Pulumi.yaml: the working directory, one above it, else the checkout of ncdemo."""
    from ncdemo.spec.paths import PACKAGE

    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "Pulumi.yaml").exists()), PACKAGE)


def stack_file(stack: str) -> Path:
    """Return a stack's config file, by name or path. Raise SpecError if there is none."""
    from ncdemo.spec.base import SpecError

    if Path(stack).suffix in (".yaml", ".yml"):
        return Path(stack)
    path = project() / "stacks" / f"Pulumi.{stack}.yaml"
    if not path.exists():
        known = sorted(p.name.removeprefix("Pulumi.").removesuffix(".yaml") for p in path.parent.glob("Pulumi.*.yaml"))
        raise SpecError(f"no stack '{stack}'; there are: {', '.join(known) or 'none'}. Write one with: ncdemo stack new {stack}")
    return path


def tell(notes: list[str]) -> None:
    for note in notes:
        click.echo(f"Warning: {note}", err=True)


@command.command()
@stack_argument
@set_option
@click.option("--json", "as_data", is_flag=True, help="Print everything as JSON.")
@click.option("--yaml", "folder", metavar="DIR", help="Write manifests, cloud-init and run commands there, and print the summary alone.")
@click.option("--picture", metavar="FILE", help="Draw the architecture as an SVG.")
def preview(stack: str, overrides: tuple[str, ...], as_data: bool, folder: str | None, picture: str | None) -> None:
    """Show what a stack would make and what it costs. Needs no Azure login, no Pulumi CLI and no network.

    STACK is a name (stacks/Pulumi.NAME.yaml) or a file.
    """
    from ncdemo.spec.stack_file import load_stack

    loaded = load_stack(stack_file(stack), overrides)
    tell(loaded.notes)
    found = rendered(loaded)
    from ncdemo.infra.picture import draw
    from ncdemo.infra.show import as_json, as_text, write_files

    if folder is not None:
        written = write_files(found, Path(folder))
        click.echo(f"{len(written)} files in {folder}", err=True)
    if picture is not None:
        Path(picture).write_text(draw(found), encoding="utf-8")
    if as_data:
        click.echo(json.dumps(as_json(found), indent=2))
    else:
        click.echo(as_text(found, files=folder is None), nl=False)


def rendered(loaded: "Stack") -> "Rendered":
    """Return what a stack would make. Raise SpecError where the Pulumi packages are missing."""
    from ncdemo.spec.base import SpecError

    try:
        from ncdemo.infra.render import render
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("pulumi"):
            raise
        raise SpecError("the Pulumi packages aren't installed; run scripts/setup_env.sh --extra infra") from None
    return render(loaded)


def pulumi_commands(verb: str, name: str, yes: bool) -> list[list[str]]:
    """Return what runs, in order. The stack is made on its first `up`, in the backend that Pulumi is logged in to."""
    act = ["pulumi", verb, "--stack", name, *(["--yes"] if yes else [])]
    return [["pulumi", "stack", "select", "--create", name], act] if verb == "up" else [act]


def run_pulumi(verb: str, stack: str, yes: bool, dry_run: bool) -> int:
    """Check the config, then let the Pulumi CLI do it. Return its exit code."""
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.stack_file import load_stack

    path = stack_file(stack)
    loaded = load_stack(path)
    tell(loaded.notes)
    if verb == "destroy":
        from ncdemo.infra.remains import as_text, remains

        click.echo(as_text(remains(loaded)), err=True)
    name, root = path.name.removeprefix("Pulumi.").rpartition(".")[0], path.resolve().parent.parent
    commands = pulumi_commands(verb, name, yes)
    if dry_run:
        click.echo("\n".join([f"cd {root}", *(" ".join(one) for one in commands)]))
        return 0
    if shutil.which("pulumi") is None:
        raise SpecError(f"the Pulumi CLI isn't installed; see: {INSTALL}. `ncdemo stack preview {stack}` works without it")
    for one in commands:
        code = subprocess.call(one, cwd=root)
        if code:
            return code
    return 0


yes_option = click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
dry_option = click.option("--dry-run", is_flag=True, help="Check the config and print the commands; run nothing.")


@command.command()
@stack_argument
@yes_option
@dry_option
def up(stack: str, yes: bool, dry_run: bool) -> None:
    """Make or change a stack's resources, and start its new jobs, with the Pulumi CLI."""
    sys.exit(run_pulumi("up", stack, yes, dry_run))


@command.command()
@stack_argument
@yes_option
@dry_option
def destroy(stack: str, yes: bool, dry_run: bool) -> None:
    """Delete everything a stack made, results in its storage account included, with the Pulumi CLI.

    Says first what goes for good, and what stays and at what price.
    """
    sys.exit(run_pulumi("destroy", stack, yes, dry_run))


command.add_command(new)
command.add_command(expire)
