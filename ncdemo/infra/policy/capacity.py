"""What keeps bought capacity from costing money idle, and from running what doesn't belong on it: GPU and spot.

python -m pytest tests/infra/test_policy.py -k "pool or spot or gpu"
"""

import re
from collections.abc import Iterator, Sequence

from ncdemo.infra.policy.base import UNKNOWN, Inputs, Resource, Rule, StackRule, kind_of, listed, objects, read, rule

POOL, CLUSTER, MACHINE = "containerservice:AgentPool", "containerservice:ManagedCluster", "compute:VirtualMachine"
SPOT_KEY = "kubernetes.azure.com/scalesetpriority"
SPOT_TAINT = f"{SPOT_KEY}=spot:NoSchedule"
GPU_TAINT = re.compile(r"(nvidia\.com/gpu(=[^:]*)?|sku=gpu):NoSchedule")


def is_gpu_size(vm_size: object) -> bool:
    """Tell whether a VM size is of Azure's NC or ND series; False for UNKNOWN and None."""
    return isinstance(vm_size, str) and re.match(r"standard_n[cd]\d", vm_size, re.IGNORECASE) is not None


def _pools(inputs: Inputs) -> list[Inputs]:
    """Return a node pool's inputs, or those of the pools that a cluster declares inline."""
    return objects(inputs, "agentPoolProfiles") if "agentPoolProfiles" in inputs else [inputs]


def _is_spot(pool: Inputs) -> bool:
    return pool.get("scaleSetPriority") == "Spot"


@rule(
    "pool-scales-to-zero",
    "A GPU or spot node pool costs nothing while nothing runs: set enableAutoScaling to true and minCount to 0.",
    POOL,
    CLUSTER,
)
def pool_scales_to_zero(inputs: Inputs) -> Iterator[str]:
    for pool in _pools(inputs):
        if _is_spot(pool) or is_gpu_size(pool.get("vmSize")):
            for key, wanted in (("enableAutoScaling", True), ("minCount", 0)):
                if pool.get(key) not in (wanted, UNKNOWN):
                    yield f"{key} is {pool.get(key, 'missing')}"


@rule(
    "spot-pool-says-so",
    f"Only what bears eviction lands on spot: declare {SPOT_KEY}=spot as label, and as taint with :NoSchedule.",
    POOL,
    CLUSTER,
)
def spot_pool_says_so(inputs: Inputs) -> Iterator[str]:
    for pool in filter(_is_spot, _pools(inputs)):
        if read(pool, "nodeLabels", SPOT_KEY) not in ("spot", UNKNOWN):
            yield f"nodeLabels lack {SPOT_KEY}: spot"
        if _lacks_taint(pool, re.compile(re.escape(SPOT_TAINT))):
            yield f"nodeTaints lack {SPOT_TAINT}"


@rule(
    "spot-pool-is-no-system-pool",
    "What keeps a cluster alive isn't evicted: a spot pool's mode is User, and no pool inline in the cluster is spot.",
    POOL,
    CLUSTER,
)
def spot_pool_is_no_system_pool(inputs: Inputs) -> Iterator[str]:
    for pool in filter(_is_spot, _pools(inputs)):
        if pool.get("mode") == "System" or pool is not inputs:
            yield "it is a spot pool for the system's pods"


@rule(
    "gpu-pool-is-tainted",
    "GPU nodes run what asks for a GPU, so that they can empty: add the taint nvidia.com/gpu:NoSchedule or sku=gpu:NoSchedule.",
    POOL,
    CLUSTER,
)
def gpu_pool_is_tainted(inputs: Inputs) -> Iterator[str]:
    for pool in _pools(inputs):
        if is_gpu_size(pool.get("vmSize")) and _lacks_taint(pool, GPU_TAINT):
            yield "nodeTaints hold no GPU taint"


def _lacks_taint(pool: Inputs, taint: re.Pattern[str]) -> bool:
    """Tell whether a pool certainly has no such taint; a taint that isn't known yet could be it."""
    taints = pool.get("nodeTaints")
    if taints is UNKNOWN or (isinstance(taints, list) and UNKNOWN in taints):
        return False
    return not any(isinstance(each, str) and taint.fullmatch(each) for each in listed(pool, "nodeTaints"))


@rule(
    "spot-vm-keeps-its-disks",
    "An evicted machine can go on later: set evictionPolicy to Deallocate and billingProfile.maxPrice (-1: up to the full price).",
    MACHINE,
)
def spot_vm_keeps_its_disks(inputs: Inputs) -> Iterator[str]:
    if inputs.get("priority") == "Spot":
        if inputs.get("evictionPolicy") not in ("Deallocate", UNKNOWN):
            yield f"evictionPolicy is {inputs.get('evictionPolicy', 'missing')}"
        if read(inputs, "billingProfile", "maxPrice") is None:
            yield "billingProfile.maxPrice is missing"


def _gpus_without_budget(resources: Sequence[Resource]) -> Iterator[tuple[Resource | None, str]]:
    sizes = {
        each.name: read(each.inputs, "vmSize") or read(each.inputs, "hardwareProfile", "vmSize")
        for each in resources
        if kind_of(each.type) in (POOL, MACHINE)
    }
    gpus = [name for name, vm_size in sizes.items() if is_gpu_size(vm_size)]
    if gpus and not any(kind_of(each.type) == "consumption:Budget" for each in resources):
        yield None, f"nobody is told what these cost: {', '.join(gpus)}"


RULES: tuple[Rule, ...] = (
    pool_scales_to_zero,
    spot_pool_says_so,
    spot_pool_is_no_system_pool,
    gpu_pool_is_tainted,
    spot_vm_keeps_its_disks,
)
STACK_RULES: tuple[StackRule, ...] = (
    StackRule(
        "gpu-stack-has-budget",
        "GPU capacity has somebody who hears of its cost: add a consumption Budget to the stack.",
        _gpus_without_budget,
        "advisory",
    ),
)
