"""Identities and what they may do: no key or password anywhere, the least role at the smallest scope."""

import uuid
from dataclasses import dataclass

import pulumi
from pulumi_azure_native import authorization, managedidentity

from ncdemo.infra.component import Component, Place

AUDIENCE = "api://AzureADTokenExchange"
ROLES = {
    "AcrPull": "7f951dda-4ed3-4680-a7ca-43fe172d538d",
    "Storage Blob Data Contributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "Storage Blob Data Reader": "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
    "Monitoring Metrics Publisher": "3913510d-42f4-4e42-8a64-420c390055eb",
    "Network Contributor": "4d97b98b-1d4f-4787-a291-c67834d212e7",
    "Azure Kubernetes Service RBAC Cluster Admin": "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b",
    "Desktop Virtualization Power On Off Contributor": "40c5ff49-9181-41f8-ae61-143b0e78555e",
}
"""Azure's built-in roles that are used, with their ids (Azure built-in roles reference)."""


@dataclass(frozen=True)
class IdentityArgs:
    place: Place
    purpose: str
    """Ends its name: jobs, mlflow, cluster."""


class Identity(Component):
    """A user-assigned identity, who may act as it, and what it may do."""

    KIND = "identity"
    id: pulumi.Output[str]
    client_id: pulumi.Output[str]
    principal_id: pulumi.Output[str]

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts, key=args.purpose)
        self.place = args.place
        self.azure_name = args.place.name("id", args.purpose)
        self._last: pulumi.Resource | None = None
        made = self.make(
            managedidentity.UserAssignedIdentity,
            "identity",
            resource_name_=self.azure_name,
            resource_group_name=args.place.resource_group,
            location=args.place.location,
            tags=args.place.tags,
        )
        self._made = made
        self.done(id=made.id, client_id=made.client_id, principal_id=made.principal_id)

    def trust(self, issuer: pulumi.Input[str], namespace: str, service_account: str) -> pulumi.Resource:
        """Let a Kubernetes ServiceAccount act as this identity. One after the other: Azure refuses two at once."""
        self._last = self.make(
            managedidentity.FederatedIdentityCredential,
            f"trust-{namespace}-{service_account}",
            federated_identity_credential_resource_name=f"{namespace}-{service_account}",
            resource_group_name=self.place.resource_group,
            # Through the identity's own output, so that it exists before.
            resource_name_=self._made.name,
            issuer=issuer,
            subject=f"system:serviceaccount:{namespace}:{service_account}",
            audiences=[AUDIENCE],
            options=pulumi.ResourceOptions(depends_on=[self._last] if self._last else []),
        )
        return self._last

    def grant(self, part: str, role: str, scope: pulumi.Input[str]) -> pulumi.Resource:
        """Give this identity a role at a scope."""
        return grant(self, part, role, scope, self.principal_id, salt=f"{self.azure_name}:{part}")


def grant(
    component: Component,
    part: str,
    role: str,
    scope: pulumi.Input[str],
    principal_id: pulumi.Input[str],
    *,
    salt: str,
    principal_type: str | None = "ServicePrincipal",
) -> pulumi.Resource:
    """Assign a role. Its name is a UUID made of role and salt, the same on every run."""
    assert role in ROLES, role
    scope = pulumi.Output.from_input(scope)
    definition = scope.apply(
        lambda at: f"/subscriptions/{at.split('/')[2]}/providers/Microsoft.Authorization/roleDefinitions/{ROLES[role]}"
    )
    made: pulumi.Resource = component.make(
        authorization.RoleAssignment,
        f"role-{part}",
        role_assignment_name=str(uuid.uuid5(uuid.NAMESPACE_URL, f"ncdemo:{salt}:{role}")),
        scope=scope,
        role_definition_id=definition,
        principal_id=principal_id,
        # A plain None becomes the SDK's default, User, which Azure refuses for a group; an output of None stays unsaid.
        principal_type=principal_type or pulumi.Output.from_input(None),
    )
    return made
