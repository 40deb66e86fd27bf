"""What every component shares: a type, named children, tags, and children that survive a rename of the component.

class Network(Component):
    def __init__(self, name, args, opts=None):
        super().__init__(name, args.place, opts)
        vnet = self.make(network.VirtualNetwork, "vnet", tags=self.place.tags, ...)
        self.done(subnet_id=...)
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pulumi

R = TypeVar("R", bound=pulumi.Resource)


@dataclass(frozen=True)
class Place:
    """Where a component's Azure resources are, and whose they are."""

    stack: str
    """The stack's name in Azure's names."""
    location: str
    resource_group: pulumi.Input[str]
    suffix: pulumi.Input[str]
    """Six characters for names that must be unique in all of Azure."""
    tags: dict[str, str] = field(default_factory=dict)

    def name(self, prefix: str, *parts: str) -> str:
        """Return an Azure name: prefix-ncdemo-stack[-part]."""
        return "-".join([prefix, "ncdemo", self.stack, *parts])

    def global_name(self, prefix: str) -> pulumi.Output[str]:
        """Return a name of at most 24 lower-case letters and digits, unique in all of Azure."""
        return pulumi.Output.concat(prefix, self.stack.replace("-", ""), self.suffix)


def tags_of(stack: str, extra: dict[str, str]) -> dict[str, str]:
    """Return the tags of every Azure resource of a stack."""
    return {"project": "ncdemo", "stack": stack, "managed-by": "pulumi", **extra}


class Component(pulumi.ComponentResource):
    """A group of resources with one purpose."""

    KIND: ClassVar[str]
    """Name of the component in the program, and first part of its children's first names."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, *, key: str = "") -> None:
        """`key` tells apart several components of one kind by what can't be renamed anyway, e.g. the pool's name."""
        super().__init__(f"ncdemo:infra:{type(self).__name__}", name, None, opts)
        self._as_named, self._as_first_named = name, "-".join(filter(None, [self.KIND, key]))

    def make(self, kind: type[R], part: str, /, *, options: pulumi.ResourceOptions | None = None, **args: Any) -> R:
        """Return a child named <component>-<part>, known by its first name too, so that renaming the component replaces nothing."""
        first = f"{self._as_first_named}-{part}"
        own = pulumi.ResourceOptions(parent=self, aliases=[] if self._as_named == self._as_first_named else [pulumi.Alias(name=first)])
        return kind(f"{self._as_named}-{part}", opts=pulumi.ResourceOptions.merge(own, options), **args)

    def done(self, **outputs: Any) -> None:
        """Register the outputs and set them as attributes."""
        for name, value in outputs.items():
            setattr(self, name, value)
        self.register_outputs(outputs)
