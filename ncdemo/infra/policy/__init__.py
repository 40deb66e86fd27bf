"""The laws of what ncdemo deploys, as code: they hold in tests, over rendered resources, and in `pulumi preview`.

Rules are pure functions over a resource's inputs, so that the same ones judge Pulumi mocks in a test and, through
stacks/policy, what the engine is about to create. Nothing here imports pulumi.

pulumi preview --policy-pack stacks/policy
"""

from collections.abc import Iterable, Iterator, Sequence

from ncdemo.infra.policy import access, capacity, images, network, pods, settings
from ncdemo.infra.policy.base import UNKNOWN, Finding, Resource, Rule, StackRule
from ncdemo.infra.policy.exceptions import EXCEPTIONS, Allowed, exception_for

__all__ = ["EXCEPTIONS", "RULES", "STACK_RULES", "UNKNOWN", "Allowed", "Finding", "Resource", "Rule", "StackRule"]
__all__ += ["findings", "resource_breaches", "stack_breaches"]

RULES: tuple[Rule, ...] = (*network.RULES, *settings.RULES, *access.RULES, *capacity.RULES, *images.RULES, *pods.RULES)
STACK_RULES: tuple[StackRule, ...] = (*network.STACK_RULES, *capacity.STACK_RULES)


def findings(resources: Iterable[Resource]) -> list[Finding]:
    """Return every breach of every rule in a stack's resources, less the exceptions."""
    stack = list(resources)
    of_one = [(rule, each, line) for each in stack for rule in RULES for line in resource_breaches(rule, each)]
    of_all = [(rule, each, line) for rule in STACK_RULES for each, line in stack_breaches(rule, stack)]
    breaches = [(rule, (each.type, each.name) if each else ("", ""), line) for rule, each, line in of_one + of_all]
    return [Finding(rule.name, rule.enforcement, *where, line) for rule, where, line in breaches]


def resource_breaches(rule: Rule, resource: Resource) -> Iterator[str]:
    """Yield a line for every breach of a rule by a resource, unless it is excepted."""
    if exception_for(rule.name, resource) is None:
        yield from rule.check(resource.type, resource.name, resource.inputs)


def stack_breaches(rule: StackRule, resources: Sequence[Resource]) -> Iterator[tuple[Resource | None, str]]:
    """Yield resource and line for every breach of a stack rule, less the exceptions; a resource of None is the stack."""
    yield from ((each, line) for each, line in rule.check(resources) if each is None or exception_for(rule.name, each) is None)
