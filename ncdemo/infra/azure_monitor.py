"""Azure Monitor: a workspace that AKS's managed Prometheus writes to, and what that scrapes of ours.

managed_config(managed_scrapes(stack))["data"]["prometheus-config"]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import yaml
from pulumi_azure_native import monitor

from ncdemo.infra import manifests as m
from ncdemo.infra.component import Component, Place
from ncdemo.infra.monitoring import NAMESPACE
from ncdemo.infra.prometheus import PUSHGATEWAY_PORT
from ncdemo.infra.scrapes import Scrape, dcgm_by_pod, pushgateway, runs
from ncdemo.spec.stack_file import Stack

STREAM, DESTINATION = "Microsoft-PrometheusMetrics", "workspace"
ADD_ON, ADD_ON_KEY = "ama-metrics-prometheus-config", "prometheus-config"
"""The ConfigMap of kube-system that the add-on reads, and its one key; the cluster has none of that name by itself."""
EVERY = "30s"
"""Between two scrapes; each sample is paid for."""


@dataclass(frozen=True)
class AzureMonitorArgs:
    place: Place
    cluster_id: pulumi.Input[str]
    provider: pulumi.ProviderResource
    scrapes: Sequence[Scrape]
    """Beside the add-on's own, which see nodes and Kubernetes alone."""


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
        if args.scrapes:
            m.apply(self, "scrapes", managed_config(args.scrapes), args.provider)
        self.done(workspace_id=workspace.id)


def managed_scrapes(stack: Stack) -> list[Scrape]:
    """Return what it scrapes of ours: what the cluster's own Prometheus would."""
    found = [pushgateway(f"pushgateway.{NAMESPACE}.svc:{PUSHGATEWAY_PORT}")] if stack.spec.monitoring.in_cluster else []
    found += [dcgm_by_pod()] if any(pool.size.gpus for pool in stack.spec.pools) else []
    return found + ([runs(stack.scraped_namespaces)] if stack.scraped_namespaces else [])


def managed_config(scrapes: Sequence[Scrape]) -> m.Manifest:
    """Return what the add-on's replica scrapes too.

    It takes `global` and `scrape_configs` alone, targets by static_configs or kubernetes_sd_configs, and refuses all of it otherwise;
    `global` would change its own jobs as well. Source: Azure Monitor's "Customize scraping of Prometheus metrics", read 2026-11-26.
    """
    config = {"scrape_configs": [{"job_name": one["job_name"], "scrape_interval": EVERY, **one} for one in scrapes]}
    data = {ADD_ON_KEY: yaml.safe_dump(config, sort_keys=False)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": m.meta(ADD_ON, "kube-system"), "data": data}
