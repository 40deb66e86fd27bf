"""`ncdemo image`: build the container image of a job with Docker or in Azure's registry, push it, and pin its digest in a stack."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ncdemo.cli.stack import stack_file

# Nothing of ncdemo.spec is imported here: it would cost `--help` a quarter of a second.
if TYPE_CHECKING:
    from ncdemo.cli.image_commands import Command, Plan, Target

PACKAGE = Path(__file__).resolve().parents[2]
TAGS = ("train", "unsloth", "vllm", "sglang", "lmdeploy", "mlflow")
"""Those of ncdemo.spec.images.IMAGES."""
NAME = "ncdemo"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TOOLS = {
    "docker": "Docker isn't installed; install it, or let Azure build: ncdemo image build TAG --azure --stack STACK",
    "az": "the Azure CLI isn't installed; see learn.microsoft.com/cli/azure/install-azure-cli",
}
tag_argument = click.argument("tag", type=click.Choice(TAGS), metavar="TAG")
stack_option = click.option("--stack", metavar="STACK", help="A stack's name or file: its repository and version; it gets the digest.")
registry_option = click.option(
    "--registry", metavar="SERVER", help="The stack's own registry, e.g. crdev1a2b.azurecr.io; else Pulumi is asked."
)
dry_option = click.option("--dry-run", is_flag=True, help="Print the commands; run nothing.")


@click.group("image")
def command() -> None:
    """Build and push the container images that jobs and services run."""


@command.command("build")
@tag_argument
@stack_option
@registry_option
@click.option("--azure", is_flag=True, help="Build in the stack's Azure registry, which pushes as well; needs no Docker.")
@click.option("--cpu", is_flag=True, help="CPU builds of torch, for a cluster without GPUs.")
@click.option("--index", metavar="URL", help="A mirror of the package index; its URL stays in the image, so no secret.")
@dry_option
def build_command(tag: str, stack: str | None, registry: str | None, azure: bool, cpu: bool, index: str | None, dry_run: bool) -> None:
    """Build an image of this checkout: train, unsloth, vllm, sglang, lmdeploy or mlflow."""
    from ncdemo.cli.image_commands import build

    target = target_of(stack, registry)
    carry_out(build(tag, target, azure=azure, cpu=cpu, index=index), tag, stack, target, dry_run)


@command.command("push")
@tag_argument
@stack_option
@registry_option
@dry_option
def push_command(tag: str, stack: str | None, registry: str | None, dry_run: bool) -> None:
    """Push an image that Docker built here, and write its digest into the stack's file."""
    from ncdemo.cli.image_commands import push
    from ncdemo.spec.base import SpecError

    target = target_of(stack, registry)
    if "/" not in target.repository:
        raise SpecError("there is nowhere to push to; name a stack with --stack, or a registry with --registry SERVER")
    carry_out(push(tag, target), tag, stack, target, dry_run)


def target_of(stack: str | None, registry: str | None) -> "Target":
    """Return where an image of a stack goes: images.repository, else `ncdemo` in its own registry; without a stack, on this machine."""
    from ncdemo.cli.image_commands import Target
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.services import Images
    from ncdemo.spec.stack_file import load_stack

    if stack is None:
        return Target(f"{registry}/{NAME}" if registry else NAME, Images().version)
    path = stack_file(stack)
    images = load_stack(path).spec.images
    if images.repository and registry:
        raise SpecError(f"--registry {registry}: the stack says images.repository = {images.repository}; leave one of them out")
    return Target(images.repository or f"{registry or own_registry(path)}/{NAME}", images.version)


def own_registry(path: Path) -> str:
    """Ask Pulumi for a stack's registry. Raise SpecError if it can't say."""
    from ncdemo.spec.base import SpecError

    name = path.name.removeprefix("Pulumi.").rpartition(".")[0]
    asked = ("pulumi", "stack", "output", "registry", "--stack", name)
    remedy = f"make it with `ncdemo stack up {name}`, or name a registry with --registry SERVER"
    if shutil.which("pulumi") is None:
        raise SpecError(f"the Pulumi CLI, which knows the registry of stack {name}, isn't installed; name it with --registry SERVER")
    done = subprocess.run(asked, cwd=path.resolve().parent.parent, capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise SpecError(f"stack {name} has no registry yet ({' '.join(asked)}: {said}); {remedy}")
    return done.stdout.strip()


def carry_out(plan: "Plan", tag: str, stack: str | None, target: "Target", dry_run: bool) -> None:
    """Run a plan to its end, or print it. The digest goes to stdout and into the stack's file."""
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.stack_edit import write_digest

    steps = [*plan.commands, *([plan.digest] if plan.digest else [])]
    if dry_run:
        click.echo("\n".join([f"cd {shlex.quote(str(PACKAGE))}", *map(shlex.join, steps)]))
        if plan.digest and stack:
            click.echo(f"# and its answer becomes images.digests.{tag} in {stack_file(stack)}")
        return
    for program in {step[0] for step in steps}:
        if shutil.which(program) is None:
            raise SpecError(TOOLS[program])
    for step in plan.commands:
        click.echo(shlex.join(step), err=True)
        # What they print is progress: stdout is for the digest.
        code = subprocess.call(step, cwd=PACKAGE, stdout=sys.stderr)
        if code:
            sys.exit(code)
    if plan.digest:
        digest = read_digest(plan.digest, target)
        click.echo(digest)
        if stack:
            changed = write_digest(stack_file(stack), tag, digest)
            click.echo(f"{stack_file(stack)}: images.digests.{tag} {'is now' if changed else 'was already'} {digest}", err=True)


def read_digest(command: "Command", target: "Target") -> str:
    """Ask for what was pushed: a digest alone, or a line per repository@digest."""
    from ncdemo.spec.base import SpecError

    done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True)
    lines = done.stdout.split()
    found = [line for line in lines if DIGEST.fullmatch(line.removeprefix(f"{target.repository}@"))]
    if done.returncode or not found:
        said = (done.stderr.strip().splitlines() or lines or ["nothing"])[-1]
        raise SpecError(
            f"the image was pushed, but its digest can't be read: {shlex.join(command)} says {said}; set images.digests by hand"
        )
    return found[0].rpartition("@")[2]
