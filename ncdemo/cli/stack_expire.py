"""`ncdemo stack expire`: which stacks are past their cost_guard.expires, and their end.

ncdemo stack expire
ncdemo stack expire --azure          # what is in the subscription, by its tags
ncdemo stack expire --destroy --yes  # for a cron job
"""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click


@dataclass(frozen=True)
class End:
    """When a stack is over."""

    stack: str
    expires: str | None
    state: str
    """expired, runs, no end, gone (nothing of it is left) or unknown."""
    says: str
    where: str


@click.command()
@click.option("--azure", is_flag=True, help="Look for resource groups by their tags, those whose config is gone included. Needs a login.")
@click.option("--subscription", metavar="ID", help="Of --azure [default: ARM_SUBSCRIPTION_ID, else the Azure CLI's]")
@click.option("--destroy", is_flag=True, help="Destroy each expired stack whose config is here, as `ncdemo stack destroy` does.")
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="With --destroy: print the commands; run nothing.")
@click.option("--json", "as_data", is_flag=True, help="Print the list as JSON.")
def expire(azure: bool, subscription: str | None, destroy: bool, yes: bool, dry_run: bool, as_data: bool) -> None:
    """List stacks with their end. Exit 1 where one has passed it; with --destroy, where one is still there."""
    from ncdemo.cli.stack import project, run_pulumi

    if destroy and as_data:
        raise click.UsageError("--json prints the list alone; leave it or --destroy out")
    now = datetime.now(UTC)
    found = declared(project() / "stacks", now)
    if azure:
        found += in_azure(subscription, now, {one.stack for one in found})
    over = [one for one in found if one.state == "expired"]
    if as_data:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        click.echo("\n".join(f"{one.state:<8} {one.stack:<18} {one.says} ({one.where})" for one in found) or "no stacks")
    if not destroy:
        sys.exit(1 if over else 0)
    files = [one.where for one in over if one.where.endswith(".yaml")]
    # One that can't be destroyed doesn't keep the others.
    codes = [run_pulumi("destroy", file, yes, dry_run) for file in files]
    ended = {one.stack for one in over if one.where in files}
    sys.exit(1 if any(codes) or any(one.stack not in ended for one in over) else 0)


def declared(folder: Path, now: datetime) -> list[End]:
    """Return the stacks that have a config here, told apart by whether Pulumi has anything of them."""
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.stack_file import load_stack

    found, counts = [], resource_counts(folder.parent)
    for path in sorted(folder.glob("Pulumi.*.yaml")):
        name = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
        try:
            stack = load_stack(path)
        except SpecError as error:
            found.append(End(name, None, "unknown", f"its config doesn't load: {str(error).splitlines()[0]}", str(path)))
            continue
        expires = stack.spec.cost_guard.expires
        gone = counts is not None and not counts.get(name)
        said = ("gone", "Pulumi has no resources of it") if gone else state(expires, now)
        # Named as in Azure, so that its resource group is known to be its own.
        found.append(End(stack.name, expires, *said, str(path)))
    return found


def resource_counts(root: Path) -> dict[str, int] | None:
    """Return stack -> resources in Pulumi's state; None where its CLI isn't there, or isn't logged in."""
    if shutil.which("pulumi") is None:
        return None
    done = subprocess.run(["pulumi", "stack", "ls", "--json"], cwd=root, capture_output=True, text=True)
    try:
        return {one["name"].rsplit("/", 1)[-1]: int(one.get("resourceCount") or 0) for one in json.loads(done.stdout)}
    except (ValueError, KeyError, TypeError):
        return None


def state(expires: str | None, now: datetime) -> tuple[str, str]:
    """Return a stack's state and when it ends, in words."""
    if expires is None:
        return "no end", "set cost_guard.expires to give it one"
    try:
        left_h = (datetime.fromisoformat(expires) - now).total_seconds() / 3600
    except (ValueError, TypeError):
        return "unknown", f"its tag expires is {expires!r}, no time in UTC"
    return ("runs", f"until {expires}, {left_h:.1f} h") if left_h > 0 else ("expired", f"since {expires}, {-left_h:.1f} h")


def in_azure(subscription: str | None, now: datetime, known: set[str]) -> list[End]:
    """Return the resource groups that carry ncdemo's tags. Raise SpecError if Azure doesn't say."""
    from azure.core.exceptions import AzureError

    from ncdemo.cli.doctor import login
    from ncdemo.infra.subscription.ask import Arm, NoAnswer
    from ncdemo.infra.subscription.check import choose
    from ncdemo.infra.subscription.groups import groups
    from ncdemo.spec.base import SpecError

    try:
        with Arm(login()) as arm:
            chosen, finding = choose(arm, subscription)
            if chosen is None:
                raise SpecError(f"--azure: subscription: {finding.found}. Remedy: {finding.remedy}")
            rows = groups(arm, chosen)
    except AzureError as error:
        raise SpecError(f"--azure: no credential works ({type(error).__name__}); run: az login") from None
    except NoAnswer as error:
        raise SpecError(f"--azure: {error}; check your rights on the subscription with: ncdemo doctor azure") from None
    found = []
    for row in rows:
        status, says = state(row.expires, now)
        stack = row.stack or row.name
        how = f"ncdemo stack destroy {stack}" if stack in known else f"az group delete -n {row.name}"
        how = "terraform destroy" if row.managed_by == "terraform" else how
        found.append(End(stack, row.expires, status, f"{says}; ends with: {how}", f"resource group {row.name}"))
    return found
