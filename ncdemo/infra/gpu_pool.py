"""One AKS node pool for jobs: nothing while idle, tainted so that only jobs come, spot if asked for."""

from dataclasses import dataclass

import pulumi
from pulumi_azure_native import containerservice as aks

from ncdemo.infra.component import Component, Place
from ncdemo.spec.capacity import Pool

SPOT_KEY = "kubernetes.azure.com/scalesetpriority"
POOL_LABEL, GPU_LABEL = "ncdemo.io/pool", "ncdemo.io/gpu"
GPU_TAINT = "nvidia.com/gpu=present:NoSchedule"
SPOT_TAINT = f"{SPOT_KEY}=spot:NoSchedule"


@dataclass(frozen=True)
class GpuPoolArgs:
    place: Place
    pool: Pool
    cluster: pulumi.Input[str]
    """Name of the cluster."""
    kubernetes_version: str
    subnet_id: pulumi.Input[str]


class GpuPool(Component):
    """AgentPool. Taint and labels are declared here, as the autoscaler reads them from AKS to start a first node."""

    KIND = "pool"

    def __init__(self, name: str, args: GpuPoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts, key=args.pool.name)
        pool = args.pool
        spot = {
            "scale_set_priority": "Spot",
            "scale_set_eviction_policy": "Delete",
            # -1: up to the pay-as-you-go price, never evicted for the price.
            "spot_max_price": pool.max_price_usd_per_h or -1.0,
        }
        # Upgraded in place: a surge node would need quota for one more GPU machine.
        upgrade = aks.AgentPoolUpgradeSettingsArgs(max_surge="0", max_unavailable="1")
        on_demand = {"scale_set_priority": "Regular", "upgrade_settings": upgrade}
        made = self.make(
            aks.AgentPool,
            "agentpool",
            agent_pool_name=pool.name,
            resource_name_=args.cluster,
            resource_group_name=args.place.resource_group,
            mode="User",
            type="VirtualMachineScaleSets",
            vm_size=pool.size.name,
            count=pool.min_count,
            min_count=pool.min_count,
            max_count=pool.max_count,
            enable_auto_scaling=True,
            scale_down_mode="Delete",
            availability_zones=list(pool.zones) or None,
            os_type="Linux",
            os_sku="Ubuntu",
            os_disk_type="Ephemeral" if pool.size.local_disk_gib else "Managed",
            os_disk_size_gb=pool.os_disk_gib,
            kubelet_disk_type="OS",
            max_pods=30,
            vnet_subnet_id=args.subnet_id,
            enable_node_public_ip=False,
            orchestrator_version=args.kubernetes_version,
            node_labels=labels(pool),
            node_taints=taints(pool),
            gpu_profile=aks.GPUProfileArgs(driver=pool.driver.capitalize()) if pool.size.gpus else None,
            tags=args.place.tags,
            **(spot if pool.spot else on_demand),
            # The autoscaler's business after the first moment.
            options=pulumi.ResourceOptions(ignore_changes=["count"]),
        )
        self.done(id=made.id)


def labels(pool: Pool) -> dict[str, str]:
    """Return the labels that jobs and agents select nodes by."""
    return {
        POOL_LABEL: pool.name,
        **({GPU_LABEL: "true"} if pool.size.gpus else {}),
        **({SPOT_KEY: "spot"} if pool.spot else {}),
    }


def taints(pool: Pool) -> list[str]:
    """Return what keeps other pods off: they'd hold an expensive node that has nothing to do."""
    return [*([GPU_TAINT] if pool.size.gpus else []), *([SPOT_TAINT] if pool.spot else [])]
