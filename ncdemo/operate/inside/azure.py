"""What Azure says of a cluster: its pools, its issuer, and the identities that its service accounts act as.

azure = Azure(lambda: Arm.connect(), wanted)
azure.pools()     # None: there is no such cluster
"""

from collections.abc import Callable
from typing import Any

from ncdemo.operate.arm import Arm, NotThere
from ncdemo.operate.inside.wanted import Wanted
from ncdemo.spec.base import SpecError

CLUSTERS, IDENTITIES = "2024-09-01", "2023-01-31"


class AzureSilent(SpecError):
    """Azure doesn't say; the cluster itself may well."""


class Azure:
    """Logs in when something is asked first. A login that failed is not tried again."""

    def __init__(self, connect: Callable[[], Arm], wanted: Wanted) -> None:
        self._connect, self._wanted = connect, wanted
        self._arm: Arm | None = None
        self._path = ""
        self._silent: str | None = None

    def cluster(self) -> dict[str, Any] | None:
        """Return the cluster's properties; None when there is none."""
        found = self._ask(self._clusters, CLUSTERS)
        properties: dict[str, Any] | None = found and found["properties"]
        return properties

    def pools(self) -> dict[str, dict[str, Any]] | None:
        """Return pool -> properties; None when there is no such cluster."""
        found = self._ask(f"{self._clusters}/agentPools", CLUSTERS)
        return None if found is None else {one["name"]: one["properties"] for one in found["value"]}

    def client_id(self, identity: str) -> str | None:
        found = self._ask(self._identity(identity), IDENTITIES)
        return str(found["properties"]["clientId"]) if found else None

    def trusts(self, identity: str) -> list[dict[str, Any]] | None:
        """Return an identity's federated credentials; None when there is no such identity."""
        found = self._ask(f"{self._identity(identity)}/federatedIdentityCredentials", IDENTITIES)
        return None if found is None else [one["properties"] for one in found["value"]]

    @property
    def _clusters(self) -> str:
        return f"Microsoft.ContainerService/managedClusters/{self._wanted.cluster}"

    def _identity(self, name: str) -> str:
        return f"Microsoft.ManagedIdentity/userAssignedIdentities/{name}"

    def _ask(self, path: str, version: str) -> Any:
        if self._silent:
            raise AzureSilent(self._silent)
        try:
            if self._arm is None:
                self._arm = self._connect()
                group = f"/subscriptions/{self._arm.subscription()}/resourceGroups/{self._wanted.resource_group}"
                self._path = f"{group}/providers/"
            return self._arm.ask("GET", self._path + path, version=version)
        except NotThere:
            return None
        except SpecError as error:
            self._silent = str(error)
            raise AzureSilent(self._silent) from None
