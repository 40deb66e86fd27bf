"""StackSpec: capacity on Azure, or a cluster that exists, and the jobs that run on it.

spec = load_stack("stacks/Pulumi.aks-dev.yaml").spec
"""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from ncdemo.spec.base import Spec
from ncdemo.spec.capacity import Aks, ExistingCluster, Pool, Vm
from ncdemo.spec.common import text
from ncdemo.spec.services import CostGuard, Images, Monitoring, Network, Storage
from ncdemo.spec.stack_job import Job

StackName = Annotated[
    str, text(r"^[a-z][a-z0-9-]{0,14}[a-z0-9]$", "2 to 16 lower-case letters, digits and hyphens, beginning with a letter")
]
Region = Annotated[str, text(r"^[a-z]{2,}[a-z0-9]*$", "an Azure region without spaces, e.g. eastus")]
TagName = Annotated[str, text(r"^[^<>%&\\?/]{1,128}$", "at most 128 characters, none of < > % & \\ ? /")]
TagValue = Annotated[str, StringConstraints(max_length=256)]
OWN_TAGS = ("project", "stack", "managed-by", "expires")
DISK_SHARE = 0.7
"""Of a Kubernetes node's OS disk, what scratch may claim: the rest holds images, logs and the kubelet's reserve."""


class StackSpec(Spec):
    """One stack: where its capacity is, how much there may be, and what runs on it."""

    kind: Literal["stack"] = "stack"
    """Says that this file is a stack."""
    name: StackName | None = None
    """Part of every Azure name (null: the stack's own name). Changing it replaces everything."""
    target: Literal["aks", "vm", "kubernetes"] = "aks"
    """Where jobs run: an AKS cluster, plain VMs, or a Kubernetes cluster that exists already."""
    location: Region = "eastus"
    """Azure region, as `az account list-locations` names it."""
    tags: dict[TagName, TagValue] = {}
    """On every Azure resource, beside project, stack, managed-by and expires."""
    pools: Annotated[tuple[Pool, ...], Field(max_length=20)] = (Pool(),)
    """What jobs run on."""
    jobs: Annotated[tuple[Job, ...], Field(max_length=200)] = ()
    """What runs."""
    images: Images = Images()
    """Container images of jobs and services."""
    aks: Aks = Aks()
    """Used when target is aks."""
    vm: Vm = Vm()
    """Used when target is vm."""
    kubernetes: ExistingCluster = ExistingCluster()
    """Used when target is kubernetes."""
    network: Network = Network()
    """The virtual network."""
    storage: Storage = Storage()
    """Blob containers and files."""
    monitoring: Monitoring = Monitoring()
    """Metrics and experiment tracking."""
    cost_guard: CostGuard = CostGuard()
    """Budget, shutdown and deadlines."""

    @property
    def all_tags(self) -> dict[str, str]:
        """The user's tags and when the stack expires; project, stack and managed-by come from who makes it."""
        return {**({"expires": self.cost_guard.expires} if self.cost_guard.expires else {}), **self.tags}

    def pool_of(self, job: Job) -> Pool | None:
        """Return the pool that a job runs on; None where it names none on a cluster that exists already."""
        if job.pool is None:
            return self.pools[0] if self.pools and self.target != "kubernetes" else None
        return next((pool for pool in self.pools if pool.name == job.pool), None)

    def gpus_of(self, job: Job) -> int:
        """Return the GPUs that a job takes on each of its nodes."""
        pool = self.pool_of(job)
        return job.gpus if job.gpus is not None else pool.size.gpus if pool else 1

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for section, names in (("pools", [p.name for p in self.pools]), ("jobs", [j.name for j in self.jobs])):
            name, count = (Counter(names).most_common(1) or [("", 0)])[0]
            if count > 1:
                at = len(names) - 1 - names[::-1].index(name)
                raise ValueError(f"{section}.{at}.name {name!r} is used twice; rename one")
        if own := [tag for tag in OWN_TAGS if tag in self.tags]:
            raise ValueError(f"tags.{own[0]} is set by ncdemo itself; remove it")
        return self

    @model_validator(mode="after")
    def _capacity_fits(self) -> Self:
        if self.target != "kubernetes" and not self.pools:
            raise ValueError("pools is empty; add one, e.g. pools: [{name: h100, vm_size: Standard_NC40ads_H100_v5, max_count: 1}]")
        if self.target == "kubernetes" and self.storage.files_gib:
            raise ValueError("storage.files_gib makes an Azure Files share, which target: kubernetes doesn't; remove it")
        if self.target == "kubernetes" and self.monitoring.application_insights:
            raise ValueError("monitoring.application_insights makes an Azure resource, which target: kubernetes doesn't; remove it")
        return self

    @model_validator(mode="after")
    def _jobs_fit(self) -> Self:
        for at, job in enumerate(self.jobs):
            problem = self._misfit(job)
            if problem:
                raise ValueError(f"jobs.{at}.{problem}")
        return self

    def _misfit(self, job: Job) -> str | None:
        """Return the key of a job that doesn't fit its pool and what to do; None if it fits."""
        pool, known = self.pool_of(job), ", ".join(pool.name for pool in self.pools)
        if job.pool is None and len(self.pools) > 1 and self.target != "kubernetes":
            return f"pool is needed, as there are several; use one of: {known}"
        if job.pool is not None and pool is None:
            return f"pool {job.pool!r} doesn't exist; use one of: {known or '(there are none: remove the key)'}"
        if not pool:
            return None
        size, room = pool.size, int(pool.os_disk_gib * DISK_SHARE)
        if job.gpus is not None and job.gpus > size.gpus:
            return (
                f"gpus asks for {job.gpus}, but a node of pool {pool.name!r} ({size.name}) has {size.gpus}; lower it, or use a larger size"
            )
        if job.nodes > pool.max_count:
            return (
                f"nodes asks for {job.nodes}, but pool {pool.name!r} has at most {pool.max_count}; lower it, or raise the pool's max_count"
            )
        if job.scratch_gib > room:
            return f"scratch_gib is more than {room}, {DISK_SHARE:.0%} of the pool's OS disk, so no node could ever take it; lower it, or raise os_disk_gib"
        return None


def notes(spec: StackSpec) -> list[str]:
    """Return what a user should know of a valid stack, one line each: what was replaced, what has no effect."""
    found = [
        f"pools.{at}.vm_size: {pool.vm_size} is not an Azure size; {pool.size.name} is used"
        for at, pool in enumerate(spec.pools)
        if pool.vm_size != pool.size.name
    ]
    if spec.target == "vm" and spec.monitoring.in_cluster:
        found.append("monitoring.in_cluster: no effect on VMs, where each run's evidence goes to Blob")
    if spec.target == "vm" and spec.monitoring.azure_monitor:
        found.append("monitoring.azure_monitor: no effect on VMs")
    if spec.target != "vm" and spec.network.ssh_from:
        found.append("network.ssh_from: no effect without VMs")
    return found
