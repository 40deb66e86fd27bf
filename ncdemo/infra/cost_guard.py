"""What keeps a forgotten stack from costing much: a budget that warns. VMs also shut themselves down (vm.py); jobs have deadlines."""

import datetime
from dataclasses import dataclass

import pulumi
from pulumi_azure_native import consumption

from ncdemo.infra.component import Component, Place
from ncdemo.spec.services import CostGuard as CostGuardSpec

THRESHOLDS = (50, 80, 100)


@dataclass(frozen=True)
class CostGuardArgs:
    place: Place
    spec: CostGuardSpec
    resource_group_id: pulumi.Input[str]
    today: datetime.date


class CostGuard(Component):
    """The resource group's monthly budget."""

    KIND = "cost-guard"

    def __init__(self, name: str, args: CostGuardArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        notices = {
            f"actual-{percent}": consumption.NotificationArgs(
                enabled=True,
                operator="GreaterThanOrEqualTo",
                threshold=float(percent),
                threshold_type="Actual",
                contact_emails=list(args.spec.alert_emails),
            )
            for percent in THRESHOLDS
        }
        first = args.today.replace(day=1)
        self.make(
            consumption.Budget,
            "budget",
            budget_name=args.place.name("budget"),
            scope=args.resource_group_id,
            amount=args.spec.monthly_budget_usd,
            category="Cost",
            time_grain="Monthly",
            time_period=consumption.BudgetTimePeriodArgs(start_date=f"{first}T00:00:00Z"),
            notifications=notices,
            # It begins in the month of its making, and stays.
            options=pulumi.ResourceOptions(ignore_changes=["timePeriod"]),
        )
        self.done()
