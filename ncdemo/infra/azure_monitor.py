"""Azure Monitor: a workspace that AKS's managed Prometheus writes to."""

from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_azure_native import monitor

from ncdemo.infra.component import Component, Place

STREAM, DESTINATION = "Microsoft-PrometheusMetrics", "workspace"


@dataclass(frozen=True)
class AzureMonitorArgs:
    place: Place
    cluster_id: pulumi.Input[str]


class AzureMonitor(Component):
    """Workspace, collection endpoint and rule, and the rule's tie to the cluster."""

    KIND = "azure-monitor"
    workspace_id: pulumi.Output[str]

    def __init__(self, name: str, args: AzureMonitorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        place = args.place
        where: dict[str, Any] = {"resource_group_name": place.resource_group, "location": place.location, "tags": place.tags}
        workspace = self.make(monitor.AzureMonitorWorkspace, "workspace", azure_monitor_workspace_name=place.name("amw"), **where)
        endpoint = self.make(
            monitor.DataCollectionEndpoint,
            "endpoint",
            data_collection_endpoint_name=place.name("dce"),
            kind="Linux",
            network_acls=monitor.DataCollectionEndpointNetworkAclsArgs(public_network_access="Enabled"),
            **where,
        )
        source = monitor.PrometheusForwarderDataSourceArgs(name="prometheus", streams=[STREAM])
        account = monitor.MonitoringAccountDestinationArgs(name=DESTINATION, account_resource_id=workspace.id)
        rule = self.make(
            monitor.DataCollectionRule,
            "rule",
            data_collection_rule_name=place.name("dcr"),
            kind="Linux",
            data_collection_endpoint_id=endpoint.id,
            data_sources=monitor.DataCollectionRuleDataSourcesArgs(prometheus_forwarder=[source]),
            destinations=monitor.DataCollectionRuleDestinationsArgs(monitoring_accounts=[account]),
            data_flows=[monitor.DataFlowArgs(streams=[STREAM], destinations=[DESTINATION])],
            **where,
        )
        self.make(
            monitor.DataCollectionRuleAssociation,
            "association",
            association_name="ContainerInsightsMetricsExtension",
            resource_uri=args.cluster_id,
            data_collection_rule_id=rule.id,
        )
        self.done(workspace_id=workspace.id)
