"""The stack's recording and alert rules for Azure's managed Prometheus, which has no file of rules: a rule group each, and who is told.

managed_groups(rule_files(spec))[0]["rules"][0]["expression"]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import yaml
from pulumi_azure_native import alertsmanagement, monitor

from ncdemo.infra.alert_rules import EVALUATION_S
from ncdemo.infra.component import Component, Place

SEVERITIES = {"critical": 1, "warning": 2, "info": 3}
"""Ours -> Azure's: 0 is its worst, 4 its least."""
UNITS = {"m": "M", "h": "H"}
RESOLVED_AFTER = "PT10M"


@dataclass(frozen=True)
class ManagedRulesArgs:
    place: Place
    workspace_id: pulumi.Input[str]
    rules: Mapping[str, str]
    """Prometheus' own rule files: name -> text."""
    emails: Sequence[str] = ()
    """Who is told of an alert; empty: it shows in the portal alone."""


class ManagedRules(Component):
    """An action group where somebody is to be told, and the rule groups."""

    KIND = "managed-rules"

    def __init__(self, name: str, args: ManagedRulesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        place = args.place
        actions = []
        if args.emails:
            told = self.make(
                monitor.ActionGroup,
                "told",
                action_group_name=place.name("ag"),
                resource_group_name=place.resource_group,
                location="global",
                tags=place.tags,
                enabled=True,
                group_short_name="ncdemo",
                email_receivers=[
                    monitor.MicrosoftCommonEmailReceiverArgs(name=f"email-{at}", email_address=email, use_common_alert_schema=True)
                    for at, email in enumerate(args.emails)
                ],
            )
            actions = [alertsmanagement.PrometheusRuleGroupActionArgs(action_group_id=told.id)]
        for group in managed_groups(args.rules):
            self.make(
                alertsmanagement.PrometheusRuleGroup,
                group["name"],
                rule_group_name=place.name("rules", group["name"]),
                resource_group_name=place.resource_group,
                location=place.location,
                tags=place.tags,
                enabled=True,
                interval=f"PT{EVALUATION_S // 60}M",
                scopes=[args.workspace_id],
                rules=[_rule(rule, actions) for rule in group["rules"]],
            )
        self.done()


def _rule(rule: dict[str, Any], actions: list[Any]) -> alertsmanagement.PrometheusRuleArgs:
    named = {"for_" if key == "for" else key: value for key, value in rule.items()}
    if "alert" in rule:
        resolved = alertsmanagement.PrometheusRuleResolveConfigurationArgs(auto_resolved=True, time_to_resolve=RESOLVED_AFTER)
        named |= {"actions": actions, "resolve_configuration": resolved}
    return alertsmanagement.PrometheusRuleArgs(enabled=True, **named)


def managed_groups(rules: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return [{name, rules}] of Prometheus' rule files, in Azure's terms: a severity is a number, a duration ISO 8601's."""
    groups = [group for text in rules.values() for group in yaml.safe_load(text)["groups"]]
    return [{"name": group["name"].removeprefix("ncdemo-"), "rules": [_managed(rule) for rule in group["rules"]]} for group in groups]


def _managed(rule: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {key: rule[key] for key in ("record", "alert") if key in rule}
    made["expression"] = rule["expr"]
    if "for" in rule:
        made["for"] = f"PT{rule['for'][:-1]}{UNITS[rule['for'][-1]]}"
    made |= {key: rule[key] for key in ("labels", "annotations") if key in rule}
    if "alert" in rule:
        made["severity"] = SEVERITIES[rule["labels"]["severity"]]
    return made
