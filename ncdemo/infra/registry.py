"""The container registry: pulled from by identity, no admin user."""

from dataclasses import dataclass

import pulumi
from pulumi_azure_native import containerregistry

from ncdemo.infra.component import Component, Place
from ncdemo.spec.services import Images

REPOSITORY = "ncdemo"


@dataclass(frozen=True)
class RegistryArgs:
    place: Place


class Registry(Component):
    """A Basic registry of the stack's own."""

    KIND = "registry"
    id: pulumi.Output[str]
    server: pulumi.Output[str]

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        made = self.make(
            containerregistry.Registry,
            "registry",
            registry_name=args.place.global_name("cr"),
            resource_group_name=args.place.resource_group,
            location=args.place.location,
            sku=containerregistry.SkuArgs(name="Basic"),
            admin_user_enabled=False,
            anonymous_pull_enabled=False,
            tags=args.place.tags,
        )
        self.done(id=made.id, server=made.login_server)


def image_tag(images: Images, name: str) -> str:
    """Return :tag, or @digest where one is known, of one of ncdemo's images."""
    digest = images.digests.get(name)  # type: ignore[call-overload]
    return f"@{digest}" if digest else f":{images.version}-{name}"


def image_ref(images: Images, name: str, server: pulumi.Input[str] | None) -> pulumi.Output[str]:
    """Return the whole reference; `server` is the stack's own registry, which images.repository replaces."""
    if images.repository is not None:
        return pulumi.Output.concat(images.repository, image_tag(images, name))
    assert server is not None, "a stack without a registry of its own has images.repository"
    return pulumi.Output.concat(server, "/", REPOSITORY, image_tag(images, name))
