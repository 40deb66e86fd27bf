"""What a stack wants inside its cluster, taken from its rendered resources, so that it is said in one place.

wanted = Wanted.of("aks-dev", render(stack).resources, stack.namespaces)
wanted.of_kind("LocalQueue")
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Manifest = dict[str, Any]
CLIENT_ID = "azure.workload.identity/client-id"


class Registered(Protocol):
    """A resource as a stack registers it."""

    @property
    def type(self) -> str: ...
    @property
    def inputs(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Wanted:
    """Without a stack everything is empty, and what is found there is judged alone."""

    stack: str | None = None
    resource_group: str | None = None
    cluster: str | None = None
    """In Azure; None on a cluster that ncdemo didn't make."""
    pools: tuple[dict[str, Any], ...] = ()
    """AgentPools, as Azure has them."""
    trusts: tuple[dict[str, Any], ...] = ()
    """Federated credentials: which service account may act as which identity."""
    manifests: tuple[Manifest, ...] = ()
    namespaces: tuple[str, ...] = ()
    """Those of jobs; empty: all."""

    @classmethod
    def of(cls, stack: str, resources: Iterable[Registered], namespaces: Sequence[str]) -> "Wanted":
        by_type: dict[str, list[dict[str, Any]]] = {}
        for one in resources:
            by_type.setdefault(one.type.rsplit(":", 1)[-1] if one.type.startswith("azure-native:") else "", []).append(one.inputs)
        cluster = next(iter(by_type.get("ManagedCluster", [])), {})
        return cls(
            stack,
            cluster.get("resourceGroupName"),
            cluster.get("resourceName"),
            tuple(by_type.get("AgentPool", [])),
            tuple(by_type.get("FederatedIdentityCredential", [])),
            tuple(one for one in by_type.get("", []) if {"apiVersion", "kind"} <= one.keys()),
            tuple(namespaces),
        )

    def of_kind(self, *kinds: str) -> list[Manifest]:
        return [one for one in self.manifests if one["kind"] in kinds]

    @property
    def up(self) -> str:
        """The command that makes what is missing, and takes back what was changed."""
        return f"ncdemo stack up {self.stack}"


def name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def space(manifest: Manifest) -> str:
    return str(manifest["metadata"]["namespace"])


def holds(conditions: list[dict[str, Any]], kind: str) -> tuple[bool | None, str]:
    """Return whether a condition is true, None where it isn't said, and its message."""
    one = next((one for one in conditions if one["type"] == kind), None)
    if one is None or one["status"] == "Unknown":
        return None, (one or {}).get("message", "")
    return one["status"] == "True", one.get("message") or one.get("reason", "")
