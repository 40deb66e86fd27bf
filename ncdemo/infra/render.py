"""The same program with no cloud: every resource that `pulumi up` would register, with its inputs.

rendered = render(load_stack("stacks/Pulumi.aks-dev.yaml"))
rendered.resources[0].type, rendered.manifests(), rendered.outputs

Pulumi's own mocks stand in for its engine, so neither its CLI nor an Azure login is needed, and nothing is asked of any network.
Values that only Azure knows are made up, and look it: subscription zeros, names that end in `abc123`.
"""

import asyncio
import base64
import datetime
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime.stack import run_pulumi_func
from pulumi.runtime.sync_await import _sync_await

from ncdemo.infra.program import deploy
from ncdemo.infra.stand_in import TOKEN_STAND_IN, WEBHOOK_STAND_IN, StandIn, plain
from ncdemo.spec.stack_file import Stack


@dataclass(frozen=True)
class Resource:
    """One resource as it was registered."""

    type: str
    name: str
    inputs: dict[str, Any]
    """Keys as the provider gets them (camelCase); secrets are replaced by [secret]."""
    urn: str
    parent: str
    aliases: tuple[str, ...] = ()

    @property
    def is_component(self) -> bool:
        return self.type.startswith("ncdemo:")

    @property
    def is_manifest(self) -> bool:
        return self.type.startswith("kubernetes:") and {"apiVersion", "kind"} <= self.inputs.keys()


@dataclass(frozen=True)
class Rendered:
    """All that a stack comes to."""

    stack: Stack
    resources: tuple[Resource, ...]
    """Components and resources, parents before children, in the order of the program."""
    outputs: dict[str, Any] = field(default_factory=dict)

    def manifests(self) -> list[dict[str, Any]]:
        """Return every Kubernetes object, as it would be applied."""
        return [r.inputs for r in self.resources if r.is_manifest]

    def cloud_inits(self) -> dict[str, str]:
        """Return VM -> its cloud-init text."""
        vms = [r for r in self.resources if r.type.endswith(":VirtualMachine")]
        return {r.inputs["vmName"]: base64.b64decode(r.inputs["osProfile"]["customData"]).decode() for r in vms}

    def of(self, kind: str) -> list[Resource]:
        """Return the resources of a type, named by its last part."""
        return [r for r in self.resources if r.type.rsplit(":", 1)[-1] == kind and not r.is_component]


def render(stack: Stack, *, today: datetime.date | None = None) -> Rendered:
    """Run the program under mocks. Raise SpecError for what only rendering shows."""
    outputs: dict[str, Any] = {}

    def program() -> None:
        token = pulumi.Output.secret(TOKEN_STAND_IN) if stack.has_token else None
        webhook = pulumi.Output.secret(WEBHOOK_STAND_IN) if stack.has_webhook else None
        found = deploy(stack, today=today or datetime.date.today(), hf_token=token, alert_webhook=webhook)
        known = _sync_await(pulumi.Output.from_input(dict(found)).future())
        outputs.update(known or {})

    resources = record(program, stack.name)
    return Rendered(stack, resources, outputs)


def record(program: Callable[[], None], stack: str, *, preview: bool = False) -> tuple[Resource, ...]:
    """Return what a Pulumi program registers. In a preview, all that Azure alone knows is unknown to it."""
    azure = StandIn(unknown=preview)
    monitor = _Recorder(azure)
    logging.getLogger("pulumi").setLevel(logging.ERROR)
    with own_loop():
        pulumi_mocks.set_mocks(azure, project="ncdemo", stack=stack, preview=preview, monitor=monitor)
        _sync_await(run_pulumi_func(program))
    return tuple(in_order(monitor.seen))


@contextmanager
def own_loop() -> Iterator[None]:
    """Give this thread an event loop for the body; the one that Pulumi would make is never closed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def in_order(resources: list[Resource]) -> list[Resource]:
    """Return parents before children; siblings by type and name, as registration order varies between runs."""
    below: dict[str, list[Resource]] = {}
    known = {r.urn for r in resources}
    for resource in resources:
        below.setdefault(resource.parent if resource.parent in known else "", []).append(resource)

    def walk(parent: str) -> list[Resource]:
        children = sorted(below.get(parent, []), key=lambda r: (not r.is_component, r.type, r.name))
        return [one for child in children for one in (child, *walk(child.urn))]

    return walk("")


class _Recorder(pulumi_mocks.MockMonitor):
    """Pulumi's mock monitor, which also keeps what a mock isn't told: parent and aliases."""

    def __init__(self, mocks: pulumi_mocks.Mocks) -> None:
        super().__init__(mocks)
        self.seen: list[Resource] = []

    def Invoke(self, request: Any) -> Any:
        with own_loop():
            return super().Invoke(request)  # type: ignore[no-untyped-call]

    def RegisterResource(self, request: Any) -> Any:
        with own_loop():
            return self._register(request)

    def _register(self, request: Any) -> Any:
        response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if request.type != "pulumi:pulumi:Stack":
            inputs = plain(pulumi.runtime.rpc.deserialize_properties(request.object))
            aliases = tuple(alias.spec.name for alias in request.aliases if alias.spec.name)
            self.seen.append(Resource(request.type, request.name, inputs, response.urn, request.parent, aliases))
        return response
