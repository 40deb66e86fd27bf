"""The command line: noun then verb, each command in a module of its own that is imported when it is called.

ncdemo demo
ncdemo train accelerate -c workloads/configs/training/demo.yaml --set train.max_steps=20
"""

import difflib
import importlib
import sys

import click

from ncdemo import __version__

# command -> (module, one line of help). A table, so that `ncdemo --help` imports no command.
COMMANDS = {
    "demo": ("ncdemo.cli.demo", "Fine-tune and benchmark the embedded model on this machine, then report."),
    "train": ("ncdemo.cli.train", "Fine-tune a model as a spec says."),
    "bench": ("ncdemo.cli.bench", "Benchmark inference engines as a spec says."),
    "watch": ("ncdemo.cli.watch", "Follow a run on one screen until it ends."),
    "report": ("ncdemo.cli.report", "Write one HTML page about one or more runs."),
    "jobs": ("ncdemo.cli.jobs", "Look after jobs: on this machine, or with --stack on AKS and VMs."),
    "results": ("ncdemo.cli.results", "List, fetch and report what jobs left in Blob storage."),
    "metrics": ("ncdemo.cli.metrics", "Push a run's figures to a Prometheus Pushgateway, or take them away."),
    "ui": ("ncdemo.cli.ui", "Look at the runs in MLflow, on this machine."),
    "model": ("ncdemo.cli.model", "Turn the embedded model into a Hugging Face folder, and print its path."),
    "stack": ("ncdemo.cli.stack", "Preview, write and deploy stacks: capacity on Azure and the jobs that run there."),
    "cost": ("ncdemo.cli.cost", "Say what a stack and its jobs would cost, or what a run did cost."),
    "terraform": ("ncdemo.cli.terraform", "The stacks' Terraform twin: its variables, and whether both build the same."),
    "image": ("ncdemo.cli.image", "Build and push the container images that jobs and services run."),
    "doctor": ("ncdemo.cli.doctor", "Say what is wrong here, in Azure or in a cluster, and what mends it."),
    "data": ("ncdemo.cli.data", "Fetch a data set for offline use, or look at the shipped one."),
    "spec": ("ncdemo.cli.spec", "Check specs and print their JSON schemas."),
}


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise click.UsageError(f"no command '{args[0]}'; {hint}commands: {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """Fine-tune and benchmark language models, here or on Azure H100s, with evidence."""


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit 2, Ctrl-C is exit 130."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as mistake:
        mistake.show()
        sys.exit(mistake.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except Exception as error:
        # Imported here alone: pydantic would cost every `--help` a tenth of a second.
        from ncdemo.spec.base import SpecError

        if not isinstance(error, SpecError):
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
