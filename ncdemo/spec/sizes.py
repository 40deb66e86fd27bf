"""The Azure VM sizes that ncdemo knows: what a node has, which quota it draws on, what it costs per hour.

find("Standard_NC40ads_H100_v5").gpus  # 1

Prices are pay-as-you-go, Linux, USD, and dated; a region that isn't in the table has no known price (None), never a guessed one.
"""

from dataclasses import dataclass, field

PRICES_SEEN = "2026-08 to 2026-11"


@dataclass(frozen=True)
class Size:
    """One row of the catalogue."""

    name: str
    vcpus: int
    memory_gib: int
    quota_family: str
    """As Azure's usage API names it; its casing varies, so compare in lower case."""
    source: str
    """Where vCPU, memory and GPUs were read."""
    gpus: int = 0
    gpu_model: str | None = None
    gpu_memory_gb: int | None = None
    """Of one GPU."""
    local_disk_gib: int = 0
    """NVMe disks that lose their content when the VM is deallocated."""
    usd_per_h: dict[str, float] = field(default_factory=dict)
    """Region -> pay-as-you-go price of one VM."""
    spot_usd_per_h: tuple[float, float] | None = None
    """Lowest and highest spot price seen; it moves daily."""

    def price(self, region: str) -> float | None:
        """Return the pay-as-you-go price in a region, USD per hour; None where it isn't known."""
        return self.usd_per_h.get(region)

    def spot(self, region: str) -> tuple[float, float] | None:
        """Return the lowest and highest spot price seen; None in a region of which nothing is known."""
        return self.spot_usd_per_h if region in self.usd_per_h else None


_NC = "azure-compute-docs ncadsh100v5-series.md; price: Azure Retail Prices, seen 2026-11-09"
_ND = "azure-compute-docs nd-h200-v5-series.md; price: Azure Retail Prices"
_D = "azure-compute-docs dsv5-series.md; price: Azure Retail Prices, as karpenter-provider-azure's table of 2023-12-18 has it"

SIZES = {
    size.name: size
    for size in (
        Size("Standard_NC40ads_H100_v5", 40, 320, "standardNCadsH100v5Family", _NC, 1, "H100 NVL", 94, 3576,
             {"eastus": 6.98, "spaincentral": 9.074}, (1.5, 2.8)),
        Size("Standard_NC80adis_H100_v5", 80, 640, "standardNCadsH100v5Family", _NC, 2, "H100 NVL", 94, 7152,
             {"eastus": 17.64, "spaincentral": 18.148}),
        Size("Standard_ND96isr_H200_v5", 96, 1850, "standardNDISRH200V5Family", _ND, 8, "H200", 141, 28000, {"eastus2": 84.80}),
        Size("Standard_D2s_v5", 2, 8, "standardDSv5Family", _D, usd_per_h={"eastus": 0.096}),
        Size("Standard_D4s_v5", 4, 16, "standardDSv5Family", _D, usd_per_h={"eastus": 0.192}),
        Size("Standard_D8s_v5", 8, 32, "standardDSv5Family", _D, usd_per_h={"eastus": 0.384}),
        Size("Standard_D16s_v5", 16, 64, "standardDSv5Family", _D, usd_per_h={"eastus": 0.768}),
    )
}  # fmt: skip

ALIASES = {"Standard_NC40adis_H100_v5": "Standard_NC40ads_H100_v5"}
"""Names that people use and Azure doesn't: never sent to Azure."""


def find(name: str) -> Size | None:
    """Return the size of a name or alias, in any casing; None if the catalogue lacks it."""
    folded = {known.lower(): known for known in (*SIZES, *ALIASES)}
    known = folded.get(name.lower())
    return SIZES[ALIASES.get(known, known)] if known else None
