"""The resource groups in a subscription that carry ncdemo's tags: what is really there, also when its config is long gone.

with Arm(credential) as arm:
    groups(arm, subscription)
"""

from dataclasses import dataclass

from ncdemo.infra.subscription.ask import Arm

VERSION = "2021-04-01"


@dataclass(frozen=True)
class Group:
    name: str
    stack: str | None
    expires: str | None
    managed_by: str | None
    """pulumi or terraform."""


def groups(arm: Arm, subscription: str) -> list[Group]:
    """Raise NoAnswer if Azure doesn't say."""
    clause = "tagName eq 'project' and tagValue eq 'ncdemo'"
    rows = arm.every(f"/subscriptions/{subscription}/resourcegroups", VERSION, **{"$filter": clause})
    tagged = [(row["name"], row.get("tags") or {}) for row in rows]
    return [Group(name, tags.get("stack"), tags.get("expires"), tags.get("managed-by")) for name, tags in tagged]
