"""`ncdemo terraform`: a stack's variables for its Terraform root, and whether Terraform and Pulumi build the same."""

import json
import sys
from pathlib import Path

import click

from ncdemo.cli.stack import set_option, stack_argument, stack_file, tell


@click.group("terraform")
def command() -> None:
    """The stacks' Terraform twin: its variables, and whether both build the same."""


@command.command("vars")
@stack_argument
@set_option
@click.option("-o", "--output", metavar="FILE", help="Write there; a name that ends in .json gets JSON. Without it: print HCL.")
def variables(stack: str, overrides: tuple[str, ...], output: str | None) -> None:
    """Print the variables of a stack's Terraform root, from the config that drives Pulumi.

    Use them with: terraform -chdir=terraform/aks plan -var-file=FILE
    """
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.stack_file import load_stack

    loaded = load_stack(stack_file(stack), overrides)
    tell(loaded.notes)
    from ncdemo.infra.terraform.variables import json_of, text_of, variables_of

    found = variables_of(loaded)
    text = json_of(found) if output and output.endswith(".json") else text_of(found)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"-o {output}: can't be written ({error.strerror}); name a file in a folder that exists") from None


@command.command()
@stack_argument
@set_option
@click.option("--json", "as_data", is_flag=True, help="Print every property as JSON.")
def parity(stack: str, overrides: tuple[str, ...], as_data: bool) -> None:
    """Compare what Pulumi and Terraform build, property by property, in Azure's own terms. Exit 1 where they differ.

    Reads both from their sources: no Azure login, no network, neither tool's CLI. Jobs aren't compared: ncdemo starts them.
    """
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.stack_file import load_stack

    loaded = load_stack(stack_file(stack), overrides)
    tell(loaded.notes)
    try:
        from ncdemo.infra.terraform.parity import compare
        from ncdemo.infra.terraform.show import as_json, as_text
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith(("pulumi", "hcl2", "lark")):
            raise
        raise SpecError("the packages of the infra extra aren't installed; run scripts/setup_env.sh --extra infra") from None
    found = compare(loaded)
    click.echo(json.dumps(as_json(found), indent=2) + "\n" if as_data else as_text(found), nl=False)
    sys.exit(0 if found.holds else 1)
