"""The policy pack: shows the engine's resources to ncdemo's rules and reports what they find. It holds no rule itself.

pulumi preview --policy-pack stacks/policy
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from ncdemo.infra.policy import RULES, STACK_RULES, UNKNOWN, Rule, StackRule, resource_breaches, stack_breaches


class EngineResource(NamedTuple):
    """A resource as rules see it, and the URN to report it by."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    urn: str


def engine_resource(given: ResourceValidationArgs | PolicyResource) -> EngineResource:
    """Return what the engine gives of a resource, as rules see it."""
    return EngineResource(given.resource_type, given.name, plain(given.props), given.urn)


def plain(value: Any) -> Any:
    """Return a property as dicts and lists, UNKNOWN in place of what pulumi_policy raises an error for."""
    if isinstance(value, Mapping):
        return {key: _item(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_item(value, index) for index in range(len(value))]
    return value


def _item(container: Any, key: Any) -> Any:
    try:
        return plain(container[key])
    except UnknownValueError:
        return UNKNOWN


def resource_policy(rule: Rule) -> ResourceValidationPolicy:
    """Make the engine's policy of a rule."""

    def validate(args: ResourceValidationArgs, report_violation: ReportViolation) -> None:
        for line in resource_breaches(rule, engine_resource(args)):
            report_violation(line, None)

    return ResourceValidationPolicy(rule.name, rule.description, validate, EnforcementLevel(rule.enforcement))


def stack_policy(rule: StackRule) -> StackValidationPolicy:
    """Make the engine's policy of a stack rule."""

    def validate(args: StackValidationArgs, report_violation: ReportViolation) -> None:
        for resource, line in stack_breaches(rule, [engine_resource(each) for each in args.resources]):
            report_violation(line, resource.urn if resource else None)

    return StackValidationPolicy(rule.name, rule.description, validate, EnforcementLevel(rule.enforcement))


def policies() -> list[Policy]:
    """Return the pack's policies: one for every rule."""
    return [*map(resource_policy, RULES), *map(stack_policy, STACK_RULES)]


if __name__ == "__main__":
    PolicyPack("ncdemo", policies())
