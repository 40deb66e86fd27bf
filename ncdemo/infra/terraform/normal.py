"""The normal form that both sides are brought to: Azure's own resource types, and a flat mapping of its property paths to values.

Resource("Microsoft.ContainerService/managedClusters/agentPools", "aks-ncdemo-dev/h100", {"properties.vmSize": "Standard_..."})

Lists of objects are keyed by what names their items, lists of texts are values of their own, ids are the names on their way.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TOP = ("location", "tags", "sku", "kind", "identity", "zones")
"""What Azure keeps beside `properties`."""
NAMES = ("name", "id", "value", "service", "path", "keyData")
ORDERED = ("nodeTaints",)
"""Lists whose order says something; all others are sorted."""


@dataclass(frozen=True)
class Resource:
    """One Azure resource of either side."""

    type: str
    name: str
    """With its parents': storage account/container."""
    properties: dict[str, Any]
    source: str
    """Its address on its side."""


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of every leaf; what is empty isn't set."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from flat(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for at, one in enumerate(value):
            key = next((one[name] for name in NAMES if name in one), at)
            yield from flat(one, f"{path}[{short(key)}]")
    elif isinstance(value, list):
        if value:
            texts = [short(one) for one in value]
            yield path, texts if path.endswith(ORDERED) else sorted(texts, key=str)
    elif value is not None:
        yield path, short(value)


def short(value: Any) -> Any:
    """Return an Azure id as the names on its way, below its resource group; a whole float as an int; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str) or not value.startswith("/subscriptions/"):
        return value
    if role := re.search(r"/roleDefinitions/([0-9a-f-]+)$", value):
        return f"role:{role[1]}"
    group, _, inside = value.partition("/resourceGroups/")[2].partition("/providers/")
    return "id:" + ("/".join(inside.split("/")[2::2]) or group)
