"""Today's prices from Azure's public Retail Prices API, which needs no login: Linux, pay as you go and spot, by the hour.

live_prices("Standard_NC40ads_H100_v5", ["eastus"])["eastus"].usd_per_h
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from ncdemo.infra.subscription.ask import TIMEOUT_S, NoAnswer, answer

NCDEMO_PRICES_URL = "NCDEMO_PRICES_URL"
"""Where the Retail Prices API is asked (unset: Azure's)."""
PRICES_URL = "https://prices.azure.com/api/retail/prices"
VERSION = "2023-01-01-preview"
PAGES = 20
"""A size has a dozen meters a region; more pages than this is another question than ours."""


@dataclass(frozen=True)
class Live:
    """A size's prices in one region, USD per hour; None where the list has no such meter."""

    usd_per_h: float | None = None
    spot_usd_per_h: float | None = None


def live_prices(size: str, regions: Iterable[str]) -> dict[str, Live]:
    """Return region -> prices. Raise NoAnswer if the list can't be read."""
    wanted = list(dict.fromkeys(regions))
    places = " or ".join(f"armRegionName eq '{region}'" for region in wanted)
    clause = f"serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armSkuName eq '{size}' and ({places})"
    url = os.environ.get(NCDEMO_PRICES_URL) or PRICES_URL
    rows: list[dict[str, Any]] = []
    with httpx.Client(timeout=TIMEOUT_S) as client:
        page = answer(client, "GET", url, params={"api-version": VERSION, "currencyCode": "USD", "$filter": clause})
        for _ in range(PAGES):
            rows += page.get("Items", [])
            if not (link := page.get("NextPageLink")):
                break
            page = answer(client, "GET", link)
    return {region: Live(of(rows, size, region, spot=False), of(rows, size, region, spot=True)) for region in wanted}


def of(rows: list[dict[str, Any]], size: str, region: str, *, spot: bool) -> float | None:
    """Return the price of the one meter that is meant: Linux, by the hour; of several, the one that took effect last."""
    found = [
        row
        for row in rows
        if (str(row.get("armSkuName")).lower(), row.get("armRegionName")) == (size.lower(), region)
        and row.get("unitOfMeasure") == "1 Hour"
        and row.get("type", "Consumption") == "Consumption"
        and "Windows" not in row.get("productName", "")
        and "Low Priority" not in row.get("meterName", "") + row.get("skuName", "")
        and ("Spot" in row.get("meterName", "") + row.get("skuName", "")) is spot
    ]
    # Of two that began together, the dearer: an estimate must not be too low.
    newest = max(found, key=lambda row: (row.get("effectiveStartDate", ""), row["retailPrice"]), default=None)
    return float(newest["retailPrice"]) if newest else None


def price_list(sizes: Iterable[str], regions: Iterable[str]) -> tuple[dict[tuple[str, str], Live], str | None]:
    """Return (size, region) -> prices, and why some are missing (None: none is)."""
    found: dict[tuple[str, str], Live] = {}
    wanted = list(regions)
    for size in sorted(set(sizes)):
        try:
            found |= {(size, region): live for region, live in live_prices(size, wanted).items()}
        except NoAnswer as error:
            return found, f"Retail Prices API: {error}"
    return found, None
