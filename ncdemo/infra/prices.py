"""Prices of what surrounds the machines: USD, pay-as-you-go, seen in US regions; the machines' own are in spec/sizes.py.

Azure's price list moves; each row says where and when it was read. None: not known, and never guessed.
"""

from dataclasses import dataclass

HOURS_PER_MONTH = 730
"""As Azure's own calculator has it."""


@dataclass(frozen=True)
class Price:
    usd_per_h: float
    source: str


CLUSTER_STANDARD_TIER = Price(0.10, "AKS pricing, uptime SLA: 73.00 per 730 h")
LOAD_BALANCER = Price(0.025, "Standard Load Balancer, first rules")
PUBLIC_ADDRESS = Price(0.005, "static Standard IPv4; Azure Retail Prices 2026-10-16")
REGISTRY_BASIC = Price(0.167 / 24, "Container Registry Basic: 5.00 per 30 days, 10 GiB included")
BASTION_BASIC = Price(0.19, "Azure Retail Prices 2026-08")
FILES_GIB = Price(0.16 / HOURS_PER_MONTH, "Azure Files Premium LRS per provisioned GiB and month; Azure Retail Prices 2026-10-03")
BLOB_GB_MONTH = 0.0184
"""Hot LRS, per GB stored and month (East US 2)."""
LOGS_GB = 2.30
"""Analytics Logs, per GB ingested, East US; the first 5 GB of a month are free (Azure Monitor pricing, seen 2026)."""
STANDARD_SSD = {128: Price(9.60 / HOURS_PER_MONTH, "E10 per month"), 256: Price(19.20 / HOURS_PER_MONTH, "E15 per month")}
PREMIUM_SSD = {128: Price(19.71 / HOURS_PER_MONTH, "P10 per month"), 256: Price(38.01 / HOURS_PER_MONTH, "P15 per month")}
"""Size in GiB -> price of one disk; a disk is paid as the next larger size."""


def disk(gib: int, table: dict[int, Price]) -> Price | None:
    """Return the price of a disk; None where no row is large enough."""
    return next((price for size, price in sorted(table.items()) if gib <= size), None) if gib > 64 else None
