"""A local stand-in of the interfaces that `ncdemo doctor azure` and `ncdemo cost --live` ask, with answers in Azure's documented shapes.

with azure() as cloud:
    cloud.quota["eastus"]["lowPriorityCores"] = (0, 0)
    cloud.url, cloud.prices_url, cloud.identity_url

Documented: Subscriptions - Get, Providers - List, Resource Skus - List, Usage - List, Spot Placement Scores - Post, Resource Graph -
Resources, Azure Retail Prices, and the managed identity endpoint of App Service. A question of another shape is answered 400.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
TOKEN = "a-token-of-the-stand-in"
NC40, NC80, D4 = "Standard_NC40ads_H100_v5", "Standard_NC80adis_H100_v5", "Standard_D4s_v5"
NAMESPACES = ("Compute", "Network", "Storage", "ContainerRegistry", "ManagedIdentity", "ContainerService", "DevTestLab", "Consumption")


def meter(
    size: str, region: str, price: float, kind: str = "", since: str = "2026-01-01T00:00:00Z", windows: bool = False
) -> dict[str, Any]:
    name = size.removeprefix("Standard_").replace("_", " ")
    return {
        "currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": price, "unitPrice": price, "armRegionName": region,
        "location": "US East", "effectiveStartDate": since, "meterId": "m", "meterName": f"{name}{kind}", "productId": "p", "skuId": "s",
        "productName": f"Virtual Machines NCadsH100v5 Series{' Windows' if windows else ''}", "skuName": f"{name}{kind}",
        "serviceName": "Virtual Machines", "serviceId": "v", "serviceFamily": "Compute", "unitOfMeasure": "1 Hour", "type": "Consumption",
        "isPrimaryMeterRegion": True, "armSkuName": size,
    }  # fmt: skip


@dataclass
class Cloud:
    """What the stand-in knows; a test changes it."""

    url: str = ""
    sizes: dict[str, dict[str, list[dict[str, Any]]]] = field(
        default_factory=lambda: {region: {size: [] for size in (NC40, NC80, D4)} for region in ("eastus", "spaincentral")}
    )
    """Region -> size -> restrictions."""
    quota: dict[str, dict[str, tuple[int, int]]] = field(
        default_factory=lambda: {
            region: {"cores": (4, 200), "lowPriorityCores": (0, 100), "standardDSv5Family": (4, 50), "StandardNCadsH100v5Family": (0, 80)}
            for region in ("eastus", "spaincentral")
        }
    )
    """Region -> name -> used, limit. Casing as Azure's, which isn't the documentation's."""
    states: dict[str, str] = field(default_factory=lambda: {f"Microsoft.{name}": "Registered" for name in NAMESPACES})
    scores: dict[str, str] = field(default_factory=lambda: {"eastus": "Low", "spaincentral": "High"})
    rates: dict[str, str] = field(default_factory=lambda: {"eastus": "20+", "spaincentral": "0-5"})
    subscription_state: str = "Enabled"
    meters: list[dict[str, Any]] = field(
        default_factory=lambda: [
            meter(NC40, "eastus", 9.99, windows=True),
            meter(NC40, "eastus", 7.10),
            meter(NC40, "eastus", 2.50, " Spot", "2026-03-01T00:00:00Z"),
            meter(NC40, "eastus", 2.20, " Spot", "2026-01-01T00:00:00Z"),
            meter(NC40, "eastus", 1.40, " Low Priority"),
            meter(NC40, "spaincentral", 9.00),
            meter(NC40, "spaincentral", 1.90, " Spot"),
            meter(D4, "eastus", 0.20),
            meter(D4, "spaincentral", 0.25),
        ]
    )
    groups: list[dict[str, Any]] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Regular expression of a path -> status and Azure's error code."""
    slow_s: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def prices_url(self) -> str:
        return f"{self.url}/api/retail/prices"

    @property
    def identity_url(self) -> str:
        return f"{self.url}/identity"

    @property
    def environment(self) -> dict[str, str]:
        """Makes the real DefaultAzureCredential, in another process, log in here as a managed identity, and ncdemo ask here."""
        return {
            "NCDEMO_ARM_URL": self.url,
            "NCDEMO_PRICES_URL": self.prices_url,
            "IDENTITY_ENDPOINT": self.identity_url,
            "IDENTITY_HEADER": "h",
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "ARM_SUBSCRIPTION_ID": SUBSCRIPTION,
        }

    def answer(self, method: str, target: str, body: Any, token: str | None) -> tuple[int, Any]:
        at = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(at.query).items()}
        self.asked.append(f"{method} {at.path}")
        for pattern, wait_s in self.slow_s.items():
            if re.search(pattern, at.path):
                time.sleep(wait_s)
        for pattern, (status, code) in self.refuse.items():
            if re.search(pattern, at.path):
                return status, {"error": {"code": code, "message": "refused by the test"}}
        if at.path == "/identity":
            good = query.get("resource") == self.url
            return (
                (200, {"access_token": TOKEN, "expires_on": "4000000000", "resource": self.url, "token_type": "Bearer"})
                if good
                else (400, {})
            )
        if at.path == "/api/retail/prices":
            return 200, self._prices(query)
        if token != f"Bearer {TOKEN}":
            return 401, {"error": {"code": "InvalidAuthenticationToken", "message": ""}}
        if "api-version" not in query:
            return 400, {"error": {"code": "MissingApiVersionParameter", "message": ""}}
        return self._arm(method, at.path, query, body)

    def _arm(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        own = f"/subscriptions/{SUBSCRIPTION}"
        one = {"id": own, "subscriptionId": SUBSCRIPTION, "displayName": "Team", "state": self.subscription_state}
        if (method, path) == ("GET", "/subscriptions"):
            return 200, {"value": [one], "count": {"type": "Total", "value": 1}}
        if (method, path) == ("GET", own):
            return 200, one
        if (method, path) == ("GET", f"{own}/providers"):
            rows = [
                {"id": f"{own}/providers/{n}", "namespace": n, "registrationState": s, "resourceTypes": []} for n, s in self.states.items()
            ]
            # Two pages, as a real list has.
            if "$skiptoken" in query:
                return 200, {"value": rows[2:]}
            return 200, {"value": rows[:2], "nextLink": f"{self.url}{path}?api-version={query['api-version']}&$skiptoken=2"}
        if (method, path) == ("GET", f"{own}/providers/Microsoft.Compute/skus"):
            region = re.fullmatch(r"location eq '(\w+)'", query.get("$filter", ""))
            return (200, {"value": self._skus(region[1])}) if region else (400, {})
        if usage := re.fullmatch(rf"{own}/providers/Microsoft\.Compute/locations/(\w+)/usages", path):
            return 200, {"value": self._usages(usage[1])}
        if re.fullmatch(rf"{own}/providers/Microsoft\.Compute/locations/\w+/placementScores/spot/generate", path) and method == "POST":
            return self._placement(body)
        if (method, path) == ("POST", "/providers/Microsoft.ResourceGraph/resources"):
            rows = [
                {"size": NC40.lower(), "location": region, "rate": rate}
                for region, rate in self.rates.items()
                if f"'{region}'" in body["query"]
            ]
            return 200, {"totalRecords": len(rows), "count": len(rows), "data": rows, "facets": [], "resultTruncated": "false"}
        if (method, path) == ("GET", f"{own}/resourcegroups"):
            known = query.get("$filter") == "tagName eq 'project' and tagValue eq 'ncdemo'"
            return (200, {"value": self.groups}) if known else (400, {})
        return 404, {"error": {"code": "NotFound", "message": path}}

    def _skus(self, region: str) -> list[dict[str, Any]]:
        disk = {"resourceType": "disks", "name": "Premium_LRS", "locations": [region], "restrictions": []}
        rows = [
            {
                "resourceType": "virtualMachines", "name": size, "tier": "Standard", "family": "f", "locations": [region],
                "locationInfo": [{"location": region, "zones": ["1", "2"]}], "capabilities": [], "restrictions": limits,
            }
            for size, limits in self.sizes.get(region, {}).items()
        ]  # fmt: skip
        return [disk, *rows]

    def _usages(self, region: str) -> list[dict[str, Any]]:
        return [
            {"unit": "Count", "currentValue": used, "limit": limit, "name": {"value": name, "localizedValue": name}}
            for name, (used, limit) in self.quota.get(region, {}).items()
        ]

    def _placement(self, body: Any) -> tuple[int, Any]:
        sizes, regions = body["desiredSizes"], body["desiredLocations"]
        if not (1 <= len(sizes) <= 5 and 1 <= len(regions) <= 8 and body["desiredCount"] >= 1):
            return 400, {"error": {"code": "BadRequest", "message": ""}}
        rows = [
            {"sku": size["sku"], "region": region, "score": self.scores[region], "isQuotaAvailable": True}
            for size in sizes
            for region in regions
            if region in self.scores
        ]
        return 200, {**body, "placementScores": rows}

    def _prices(self, query: dict[str, str]) -> dict[str, Any]:
        clause = query.get("$filter", "")
        size, regions = re.search(r"armSkuName eq '(\w+)'", clause), re.findall(r"armRegionName eq '(\w+)'", clause)
        rows = [row for row in self.meters if size and row["armSkuName"] == size[1] and row["armRegionName"] in regions]
        page = int(query.get("$skip", "0"))
        link = f"{self.prices_url}?{self._query(query, page + 2)}" if rows[page + 2 :] else None
        head = {"BillingCurrency": "USD", "CustomerEntityId": "Default", "CustomerEntityType": "Retail"}
        return {**head, "Items": rows[page : page + 2], "NextPageLink": link, "Count": len(rows[page : page + 2])}

    def _query(self, query: dict[str, str], skip: int) -> str:
        from urllib.parse import urlencode

        return urlencode({**query, "$skip": str(skip)})


@contextlib.contextmanager
def azure() -> Iterator[Cloud]:
    """Serve the stand-in on a free port of 127.0.0.1 until the body ends."""
    cloud = Cloud()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say(None)

        def do_POST(self) -> None:
            self._say(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _say(self, body: Any) -> None:
            status, found = cloud.answer(self.command, self.path, body, self.headers.get("Authorization"))
            text = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(text)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cloud.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
