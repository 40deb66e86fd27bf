"""What watches: the budget, logs, Application Insights, managed Prometheus and its rules."""

from typing import Any

from ncdemo.infra.terraform.azurerm.kind import PLACE, Arguments, Convert, Kind, P, on, own


def _rule(rule: Arguments) -> dict[str, Any]:
    """Return a rule as Azure has it; its list has an order, and rules that record have no names of their own."""
    same = ("alert", "record", "enabled", "expression", "for", "severity", "labels", "annotations")
    made = {name: rule[name] for name in same if rule.get(name) is not None}
    if actions := [{"actionGroupId": one["action_group_id"]} for one in rule.get("action", [])]:
        made["actions"] = actions
    for one in rule.get("alert_resolution", []):
        made["resolveConfiguration"] = {"autoResolved": one["auto_resolved"], "timeToResolve": one["time_to_resolve"]}
    return made


MONITORING: dict[str, Kind] = {
    "azurerm_consumption_budget_resource_group": Kind(
        "Microsoft.Consumption/budgets",
        own,
        {
            "name": None,
            "resource_group_id": P + "scope",
            "amount": P + "amount",
            "time_grain": P + "timeGrain",
            "time_period.start_date": P + "timePeriod.startDate",
            **{
                f"notification.{argument}": f"{P}notifications.{{key}}.{name}"
                for argument, name in {
                    "enabled": "enabled",
                    "operator": "operator",
                    "threshold": "threshold",
                    "threshold_type": "thresholdType",
                    "contact_emails": "contactEmails",
                }.items()
            },
        },
        fixed={P + "category": "Cost"},
        keys={"notification": "threshold_type,threshold"},
    ),
    "azurerm_log_analytics_workspace": Kind(
        "Microsoft.OperationalInsights/workspaces",
        own,
        {
            **PLACE,
            "sku": P + "sku.name",
            "retention_in_days": P + "retentionInDays",
            "daily_quota_gb": P + "workspaceCapping.dailyQuotaGb",
            "local_authentication_enabled": Convert(P + "features.disableLocalAuth", lambda yes: not yes),
            "allow_resource_only_permissions": P + "features.enableLogAccessUsingOnlyResourcePermissions",
        },
    ),
    "azurerm_application_insights": Kind(
        "Microsoft.Insights/components",
        own,
        {
            **PLACE,
            "application_type": P + "Application_Type",
            "workspace_id": P + "WorkspaceResourceId",
            "local_authentication_enabled": Convert(P + "DisableLocalAuth", lambda yes: not yes),
            "internet_ingestion_enabled": Convert(P + "publicNetworkAccessForIngestion", on),
            "internet_query_enabled": Convert(P + "publicNetworkAccessForQuery", on),
        },
        # azurerm sends the type as the kind too.
        when={"application_type": {"kind": "other"}},
    ),
    "azurerm_monitor_action_group": Kind(
        "Microsoft.Insights/actionGroups",
        own,
        {
            **PLACE,
            "short_name": P + "groupShortName",
            "enabled": P + "enabled",
            **{
                f"email_receiver.{argument}": f"{P}emailReceivers[{{key}}].{name}"
                for argument, name in {
                    "name": "name",
                    "email_address": "emailAddress",
                    "use_common_alert_schema": "useCommonAlertSchema",
                }.items()
            },
        },
        keys={"email_receiver": "name"},
    ),
    "azurerm_monitor_alert_prometheus_rule_group": Kind(
        "Microsoft.AlertsManagement/prometheusRuleGroups",
        own,
        {
            **PLACE,
            "rule_group_enabled": P + "enabled",
            "interval": P + "interval",
            "scopes": P + "scopes",
            "rule": Convert(P + "rules", lambda all_: [_rule(one) for one in all_]),
        },
    ),
    "azurerm_monitor_workspace": Kind("Microsoft.Monitor/accounts", own, {**PLACE}),
    "azurerm_monitor_data_collection_endpoint": Kind(
        "Microsoft.Insights/dataCollectionEndpoints",
        own,
        {
            **PLACE,
            "kind": "kind",
            "public_network_access_enabled": Convert(P + "networkAcls.publicNetworkAccess", on),
        },
    ),
    "azurerm_monitor_data_collection_rule": Kind(
        "Microsoft.Insights/dataCollectionRules",
        own,
        {
            **PLACE,
            "kind": "kind",
            "data_collection_endpoint_id": P + "dataCollectionEndpointId",
            "data_sources.prometheus_forwarder": P + "dataSources.prometheusForwarder",
            "destinations.monitor_account": Convert(
                P + "destinations.monitoringAccounts",
                lambda all_: [{"name": one["name"], "accountResourceId": one["monitor_account_id"]} for one in all_],
            ),
            "data_flow": P + "dataFlows",
        },
    ),
    "azurerm_monitor_data_collection_rule_association": Kind(
        "Microsoft.Insights/dataCollectionRuleAssociations",
        own,
        {"name": None, "target_resource_id": P + "resourceUri", "data_collection_rule_id": P + "dataCollectionRuleId"},
    ),
}
