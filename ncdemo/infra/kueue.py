"""Kueue: all nodes of a job start together, or the job waits; one queue per namespace, one quota per pool."""

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.helm.v3 import Release

from ncdemo.infra import manifests as m
from ncdemo.infra.component import Component
from ncdemo.infra.gpu_pool import POOL_LABEL, SPOT_KEY, taints
from ncdemo.spec.capacity import Pool

CHART, VERSION = "oci://registry.k8s.io/kueue/charts/kueue", "0.19.6"
API = "kueue.x-k8s.io/v1beta2"
QUEUE = "ncdemo"
NAMESPACE = "kueue-system"


@dataclass(frozen=True)
class KueueArgs:
    provider: pulumi.ProviderResource
    pools: tuple[Pool, ...]
    namespaces: tuple[str, ...]


class Kueue(Component):
    """The controller's chart, a flavor per pool, one cluster queue, and a local queue in each namespace of jobs."""

    KIND = "kueue"

    def __init__(self, name: str, args: KueueArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        system = m.ON_SYSTEM_POOL
        chart = self.make(
            Release,
            "chart",
            chart=CHART,
            version=VERSION,
            name="kueue",
            namespace=NAMESPACE,
            create_namespace=True,
            timeout=600,
            values={"controllerManager": {"nodeSelector": system["nodeSelector"], "tolerations": system["tolerations"]}},
            options=pulumi.ResourceOptions(provider=args.provider),
        )
        after = pulumi.ResourceOptions(depends_on=[chart])
        flavors = [m.apply(self, f"flavor-{pool.name}", flavor(pool), args.provider, after) for pool in args.pools]
        cluster = m.apply(self, "queue", cluster_queue(args.pools), args.provider, pulumi.ResourceOptions(depends_on=flavors))
        for space in args.namespaces:
            local = {"apiVersion": API, "kind": "LocalQueue", "metadata": m.meta(QUEUE, space), "spec": {"clusterQueue": QUEUE}}
            m.apply(self, f"queue-{space}", local, args.provider, pulumi.ResourceOptions(depends_on=[cluster]))
        self.done()


def flavor(pool: Pool) -> m.Manifest:
    """Return what Kueue knows of a pool's nodes: label and taints."""
    keys = [taint.partition("=")[0] for taint in taints(pool)]
    tolerations = [
        {"key": key, "operator": "Equal", "value": "spot", "effect": "NoSchedule"}
        if key == SPOT_KEY
        else {"key": key, "operator": "Exists", "effect": "NoSchedule"}
        for key in keys
    ]
    spec = {"nodeLabels": {POOL_LABEL: pool.name}, **({"tolerations": tolerations} if tolerations else {})}
    return {"apiVersion": API, "kind": "ResourceFlavor", "metadata": m.meta(pool.name, None), "spec": spec}


def cluster_queue(pools: tuple[Pool, ...]) -> m.Manifest:
    """Return one queue over all pools: each pool's quota is what it may grow to."""
    flavors = [
        {
            "name": pool.name,
            "resources": [
                {"name": "cpu", "nominalQuota": pool.size.vcpus * pool.max_count},
                {"name": "memory", "nominalQuota": f"{pool.size.memory_gib * pool.max_count}Gi"},
                {"name": "ephemeral-storage", "nominalQuota": f"{pool.os_disk_gib * pool.max_count}Gi"},
                {"name": "nvidia.com/gpu", "nominalQuota": pool.size.gpus * pool.max_count},
            ],
        }
        for pool in pools
    ]
    covered = ["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"]
    spec = {"namespaceSelector": {}, "resourceGroups": [{"coveredResources": covered, "flavors": flavors}]}
    return {"apiVersion": API, "kind": "ClusterQueue", "metadata": m.meta(QUEUE, None), "spec": spec}
