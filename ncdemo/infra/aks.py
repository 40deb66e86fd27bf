"""The AKS cluster with its system pool: private by default where it can be, workload identity on, nothing else running."""

import base64
from dataclasses import dataclass
from typing import Any

import pulumi
import yaml
from pulumi_azure_native import containerservice as aks

from ncdemo.infra.component import Component, Place
from ncdemo.infra.gpu_pool import POOL_LABEL
from ncdemo.infra.identity import Identity, grant
from ncdemo.spec.capacity import SYSTEM_DISK_GIB, Aks
from ncdemo.spec.sizes import find

SYSTEM_TAINT = "CriticalAddonsOnly=true:NoSchedule"
SERVICE_CIDR, DNS_IP, POD_CIDR = "10.0.0.0/16", "10.0.0.10", "10.244.0.0/16"


@dataclass(frozen=True)
class ClusterArgs:
    place: Place
    spec: Aks
    identity: Identity
    """The control plane acts as it."""
    subnet_id: pulumi.Input[str]
    azure_monitor: bool


class Cluster(Component):
    """ManagedCluster; GPU pools are resources of their own (gpu_pool.py)."""

    KIND = "cluster"
    id: pulumi.Output[str]
    name: pulumi.Output[str]
    issuer: pulumi.Output[str]
    kubelet: pulumi.Output[str]
    """Object id of the identity that pulls images."""
    kubeconfig: pulumi.Output[str]

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        place, spec = args.place, args.spec
        joins = args.identity.grant("subnet", "Network Contributor", args.subnet_id)
        made = self.make(
            aks.ManagedCluster,
            "aks",
            resource_name_=place.name("aks"),
            resource_group_name=place.resource_group,
            location=place.location,
            dns_prefix=f"ncdemo-{place.stack}",
            node_resource_group=place.name("rg", "nodes"),
            kubernetes_version=spec.kubernetes_version,
            sku=aks.ManagedClusterSKUArgs(name="Base", tier=spec.tier),
            identity=aks.ManagedClusterIdentityArgs(type="UserAssigned", user_assigned_identities=[args.identity.id]),
            agent_pool_profiles=[system_pool(spec, args.subnet_id)],
            network_profile=aks.ContainerServiceNetworkProfileArgs(
                network_plugin="azure",
                network_plugin_mode="overlay",
                network_dataplane="cilium",
                network_policy="cilium",
                service_cidr=SERVICE_CIDR,
                dns_service_ip=DNS_IP,
                pod_cidr=POD_CIDR,
                load_balancer_sku="standard",
                outbound_type="loadBalancer",
            ),
            enable_rbac=True,
            aad_profile=aks.ManagedClusterAADProfileArgs(managed=True, enable_azure_rbac=True) if spec.admins else None,
            disable_local_accounts=bool(spec.admins),
            api_server_access_profile=aks.ManagedClusterAPIServerAccessProfileArgs(authorized_ip_ranges=list(spec.api_allowed_from))
            if spec.api_allowed_from
            else None,
            oidc_issuer_profile=aks.ManagedClusterOIDCIssuerProfileArgs(enabled=True),
            security_profile=aks.ManagedClusterSecurityProfileArgs(
                workload_identity=aks.ManagedClusterSecurityProfileWorkloadIdentityArgs(enabled=True),
                image_cleaner=aks.ManagedClusterSecurityProfileImageCleanerArgs(enabled=True, interval_hours=168),
            ),
            auto_upgrade_profile=aks.ManagedClusterAutoUpgradeProfileArgs(upgrade_channel="patch", node_os_upgrade_channel="NodeImage"),
            auto_scaler_profile=aks.ManagedClusterPropertiesAutoScalerProfileArgs(
                # GPU nodes go soon after their last job; `unneeded` counts from the last pod.
                scale_down_unneeded_time="10m",
                scale_down_delay_after_add="10m",
                skip_nodes_with_local_storage="false",
                expander="least-waste",
            ),
            storage_profile=aks.ManagedClusterStorageProfileArgs(
                disk_csi_driver=aks.ManagedClusterStorageProfileDiskCSIDriverArgs(enabled=True),
                file_csi_driver=aks.ManagedClusterStorageProfileFileCSIDriverArgs(enabled=True),
            ),
            azure_monitor_profile=aks.ManagedClusterAzureMonitorProfileArgs(
                metrics=aks.ManagedClusterAzureMonitorProfileMetricsArgs(enabled=True)
            )
            if args.azure_monitor
            else None,
            tags=place.tags,
            # The node image and the cluster's patch move on their own.
            options=pulumi.ResourceOptions(depends_on=[joins]),
        )
        admins = [
            grant(
                self,
                f"admin-{who}",
                "Azure Kubernetes Service RBAC Cluster Admin",
                made.id,
                who,
                # Who is part of the assignment's name: two admins are two assignments.
                salt=f"{place.name('aks')}:admin-{who}",
                principal_type=None,
            )
            for who in spec.admins
        ]
        credentials = aks.list_managed_cluster_user_credentials_output(
            resource_group_name=place.resource_group,
            # Of the id, which is unknown until the cluster exists: nothing is asked of Azure in a first preview.
            resource_name=made.id.apply(lambda at: at.rsplit("/", 1)[-1]),
            opts=pulumi.InvokeOutputOptions(parent=self, depends_on=[made, *admins]),
        )
        self.done(
            id=made.id,
            name=made.name,
            issuer=made.oidc_issuer_profile.apply(lambda profile: profile.issuer_url),
            kubelet=made.identity_profile.apply(lambda profile: profile["kubeletidentity"].object_id),
            kubeconfig=pulumi.Output.secret(credentials.kubeconfigs.apply(lambda found: kubeconfig_text(found[0].value))),
        )


def system_pool(spec: Aks, subnet_id: pulumi.Input[str]) -> aks.ManagedClusterAgentPoolProfileArgs:
    """Return the cluster's own pool, closed to everything that doesn't tolerate it."""
    size = find(spec.system.vm_size)
    assert size
    return aks.ManagedClusterAgentPoolProfileArgs(
        name="system",
        mode="System",
        type="VirtualMachineScaleSets",
        vm_size=size.name,
        count=spec.system.count,
        os_type="Linux",
        os_sku="Ubuntu",
        os_disk_type="Managed",
        os_disk_size_gb=SYSTEM_DISK_GIB,
        vnet_subnet_id=subnet_id,
        enable_node_public_ip=False,
        max_pods=60,
        node_labels={POOL_LABEL: "system"},
        node_taints=[SYSTEM_TAINT],
        upgrade_settings=aks.AgentPoolUpgradeSettingsArgs(max_surge="1"),
    )


def kubeconfig_text(encoded: str) -> str:
    """Return a kubeconfig as text; one that asks for a device code in a browser uses the Azure CLI's login instead."""
    text = base64.b64decode(encoded).decode()
    config: dict[str, Any] = yaml.safe_load(text)
    for user in config.get("users", []):
        call = user.get("user", {}).get("exec")
        if call and "--login" in call.get("args", []):
            call["args"][call["args"].index("--login") + 1] = "azurecli"
    return yaml.safe_dump(config, sort_keys=False)
