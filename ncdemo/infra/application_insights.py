"""Application Insights: where jobs send their figures with `telemetry.azure_monitor`, and the workspace that keeps them.

Only identities may write there: with local auth disabled, who holds the connection string alone can send nothing.
"""

from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_azure_native import applicationinsights, operationalinsights

from ncdemo.infra.component import Component, Place

RETENTION_DAYS = 90
"""Azure keeps the tables of Application Insights so long without charge (Manage data retention in a Log Analytics workspace)."""
SECRETS = ["connectionString", "instrumentationKey"]
"""Outputs of the component that Pulumi's state holds encrypted."""


@dataclass(frozen=True)
class ApplicationInsightsArgs:
    place: Place
    gb_per_day: float
    """What comes after so many GB in a day isn't kept."""


class ApplicationInsights(Component):
    """A Log Analytics workspace, and the component that writes to it."""

    KIND = "application-insights"
    id: pulumi.Output[str]
    """Of the component: what a role is given at."""
    connection_string: pulumi.Output[str]
    """A secret."""

    def __init__(self, name: str, args: ApplicationInsightsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        place = args.place
        where: dict[str, Any] = {"resource_group_name": place.resource_group, "location": place.location, "tags": place.tags}
        features = operationalinsights.WorkspaceFeaturesArgs(
            disable_local_auth=True,
            # Who may read the component may read its figures; a right on the whole workspace isn't needed.
            enable_log_access_using_only_resource_permissions=True,
        )
        workspace = self.make(
            operationalinsights.Workspace,
            "workspace",
            workspace_name=place.name("log"),
            sku=operationalinsights.WorkspaceSkuArgs(name="PerGB2018"),
            retention_in_days=RETENTION_DAYS,
            workspace_capping=operationalinsights.WorkspaceCappingArgs(daily_quota_gb=args.gb_per_day),
            features=features,
            **where,
        )
        component = self.make(
            applicationinsights.Component,
            "component",
            resource_name_=place.name("appi"),
            application_type="other",
            kind="other",
            workspace_resource_id=workspace.id,
            disable_local_auth=True,
            options=pulumi.ResourceOptions(additional_secret_outputs=SECRETS),
            **where,
        )
        self.done(id=component.id, connection_string=pulumi.Output.secret(component.connection_string))
