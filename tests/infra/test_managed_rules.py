"""The stack's rules as Azure's managed Prometheus takes them, and who is told."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.infra.alert_rules import rule_files
from ncdemo.infra.render import Rendered, render
from ncdemo.spec.base import SpecError
from ncdemo.spec.stack_file import load_stack, stack_of

FULL = Path(__file__).resolve().parents[2] / "stacks" / "Pulumi.aks-full.yaml"
MOST_RULES = 20
"""Of one group in Azure."""
DURATION = re.compile(r"PT\d+[MH]")


@pytest.fixture(scope="module")
def found() -> Rendered:
    return render(load_stack(FULL, ["monitoring.azure_monitor_alerts=true"]))


def ours(found: Rendered) -> list[dict[str, Any]]:
    files = rule_files(found.stack.spec).values()
    return [rule for text in files for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def test_every_rule_of_the_clusters_own_prometheus_is_there(found: Rendered) -> None:
    groups = found.of("PrometheusRuleGroup")
    assert [one.inputs["ruleGroupName"] for one in groups] == [f"rules-ncdemo-aks-full-{name}" for name in ("cost", "gpus", "runs")]
    theirs = {rule.get("alert") or f"{rule['record']} {rule.get('labels')}": rule for one in groups for rule in one.inputs["rules"]}
    assert len(theirs) == sum(len(one.inputs["rules"]) for one in groups)
    for rule in ours(found):
        managed = theirs.pop(rule.get("alert") or f"{rule['record']} {rule.get('labels')}")
        assert managed["expression"] == rule["expr"]
        assert (managed.get("labels"), managed.get("annotations")) == (rule.get("labels"), rule.get("annotations"))
        assert bool(managed.get("for")) == ("for" in rule)
    assert theirs == {}


def test_azure_can_take_them(found: Rendered) -> None:
    workspace = found.of("AzureMonitorWorkspace")[0].inputs["azureMonitorWorkspaceName"]
    for one in found.of("PrometheusRuleGroup"):
        assert [scope.rpartition("/")[2] for scope in one.inputs["scopes"]] == [workspace]
        assert 0 < len(one.inputs["rules"]) <= MOST_RULES
        assert DURATION.fullmatch(one.inputs["interval"])
        for rule in one.inputs["rules"]:
            assert DURATION.fullmatch(rule.get("for", "PT1M"))
            assert ("severity" in rule) == ("alert" in rule) == ("actions" in rule) == ("resolveConfiguration" in rule)
            assert rule.get("severity", 1) in (1, 2, 3)


def test_the_budgets_addresses_are_told(found: Rendered) -> None:
    (group,) = found.of("ActionGroup")
    assert [one["emailAddress"] for one in group.inputs["emailReceivers"]] == ["ml-platform@example.com"]
    acted = {action["actionGroupId"].rpartition("/")[2] for one in found.of("PrometheusRuleGroup") for rule in one.inputs["rules"]
             for action in rule.get("actions", [])}  # fmt: skip
    assert acted == {group.inputs["actionGroupName"]}


def test_without_an_address_alerts_show_in_azure_alone() -> None:
    bare = render(stack_of("dev", {"monitoring": {"azure_monitor": True, "azure_monitor_alerts": True}}, {}))
    assert bare.of("ActionGroup") == []
    assert bare.of("PrometheusRuleGroup")


def test_none_is_made_unless_asked_for() -> None:
    bare = render(load_stack(FULL))
    assert bare.of("PrometheusRuleGroup") + bare.of("ActionGroup") == []


def test_rules_want_something_to_look_at() -> None:
    with pytest.raises(SpecError, match="azure_monitor_alerts are rules over what azure_monitor holds; set azure_monitor: true too"):
        stack_of("dev", {"monitoring": {"azure_monitor_alerts": True}}, {})
