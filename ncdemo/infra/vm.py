"""One VM for jobs: Microsoft's HPC image, spot if asked for, no address and no password, gone from the bill when idle."""

import base64
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_azure_native import compute, devtestlab, network

from ncdemo.infra.cloud_init import cloud_init
from ncdemo.infra.component import Component, Place
from ncdemo.infra.identity import Identity
from ncdemo.spec.capacity import Pool
from ncdemo.spec.capacity import Vm as VmSpec


@dataclass(frozen=True)
class VmArgs:
    place: Place
    spec: VmSpec
    pool: Pool
    index: int
    """Of the VM in its pool, from 0."""
    subnet_id: pulumi.Input[str]
    identity: Identity
    ssh_public_keys: tuple[pulumi.Input[str], ...]
    public_address: bool
    """Only with an allow-list on the subnet."""
    shutdown_utc: str | None
    files: pulumi.Input[str] | None
    """Storage account of the NFS share."""


class Vm(Component):
    """Network card, machine, its right to deallocate itself, and its daily shutdown."""

    KIND = "vm"
    azure_name: str
    host: str
    """What the other VMs of the network call it."""
    name: pulumi.Output[str]

    def __init__(self, name: str, args: VmArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        host = f"{args.pool.name}-{args.index}"
        super().__init__(name, opts, key=host)
        place, azure_name = args.place, args.place.name("vm", host)
        where: dict[str, Any] = {"resource_group_name": place.resource_group, "location": place.location, "tags": place.tags}
        made = self.make(
            compute.VirtualMachine,
            "machine",
            vm_name=azure_name,
            hardware_profile=compute.HardwareProfileArgs(vm_size=args.pool.size.name),
            storage_profile=storage_profile(args, azure_name),
            os_profile=os_profile(args, host),
            network_profile=compute.NetworkProfileArgs(network_interfaces=[self._nic(args, azure_name, where)]),
            identity=compute.VirtualMachineIdentityArgs(type="UserAssigned", user_assigned_identities=[args.identity.id]),
            diagnostics_profile=compute.DiagnosticsProfileArgs(boot_diagnostics=compute.BootDiagnosticsArgs(enabled=True)),
            zones=[args.pool.zones[args.index % len(args.pool.zones)]] if args.pool.zones else None,
            **spot(args.pool),
            **where,
        )
        args.identity.grant(f"deallocate-{host}", "Desktop Virtualization Power On Off Contributor", made.id)
        if args.shutdown_utc:
            self.make(
                devtestlab.GlobalSchedule,
                "shutdown",
                # Azure finds the schedule of a VM by this name.
                name=f"shutdown-computevm-{azure_name}",
                status="Enabled",
                task_type="ComputeVmShutdownTask",
                daily_recurrence=devtestlab.DayDetailsArgs(time=args.shutdown_utc.replace(":", "")),
                time_zone_id="UTC",
                target_resource_id=made.id,
                notification_settings=devtestlab.NotificationSettingsArgs(status="Disabled"),
                **where,
            )
        self.done(azure_name=azure_name, host=host, name=made.name)

    def _nic(self, args: VmArgs, azure_name: str, where: dict[str, Any]) -> compute.NetworkInterfaceReferenceArgs:
        address = None
        if args.public_address:
            address = self.make(
                network.PublicIPAddress,
                "address",
                public_ip_address_name=f"pip-{azure_name}",
                sku=network.PublicIPAddressSkuArgs(name="Standard"),
                public_ip_allocation_method="Static",
                **where,
            )
        ip = network.NetworkInterfaceIPConfigurationArgs(
            name="main",
            subnet=network.SubnetArgs(id=args.subnet_id),
            private_ip_allocation_method="Dynamic",
            public_ip_address=network.PublicIPAddressArgs(id=address.id) if address else None,
        )
        nic = self.make(
            network.NetworkInterface,
            "nic",
            network_interface_name=f"nic-{azure_name}",
            ip_configurations=[ip],
            enable_accelerated_networking=True,
            **where,
        )
        return compute.NetworkInterfaceReferenceArgs(id=nic.id, primary=True, delete_option="Delete")


def spot(pool: Pool) -> dict[str, Any]:
    """Return what makes a VM a spot VM that keeps its disk when Azure takes it back."""
    if not pool.spot:
        return {"priority": "Regular"}
    billing = compute.BillingProfileArgs(max_price=pool.max_price_usd_per_h or -1.0)
    return {"priority": "Spot", "eviction_policy": "Deallocate", "billing_profile": billing}


def storage_profile(args: VmArgs, azure_name: str) -> compute.StorageProfileArgs:
    """Return image and OS disk. The disk is a managed one: a VM on a local OS disk can't be deallocated."""
    return compute.StorageProfileArgs(
        image_reference=compute.ImageReferenceArgs(publisher="microsoft-dsvm", offer="ubuntu-hpc", sku=args.spec.image, version="latest"),
        os_disk=compute.OSDiskArgs(
            name=f"osdisk-{azure_name}",
            create_option="FromImage",
            caching="ReadWrite",
            disk_size_gb=args.pool.os_disk_gib,
            managed_disk=compute.ManagedDiskParametersArgs(storage_account_type="StandardSSD_LRS"),
            delete_option="Delete",
        ),
    )


def os_profile(args: VmArgs, host: str) -> compute.OSProfileArgs:
    """Return users and first boot; there is no password to guess."""
    admin = args.spec.admin_username
    keys = [compute.SshPublicKeyArgs(path=f"/home/{admin}/.ssh/authorized_keys", key_data=key) for key in args.ssh_public_keys]
    return compute.OSProfileArgs(
        computer_name=host,
        admin_username=admin,
        custom_data=custom_data(args),
        linux_configuration=compute.LinuxConfigurationArgs(
            disable_password_authentication=True,
            provision_vm_agent=True,
            ssh=compute.SshConfigurationArgs(public_keys=keys),
        ),
    )


def custom_data(args: VmArgs) -> pulumi.Output[str]:
    """Return the cloud-init text, in base64."""

    def encode(found: list[str]) -> str:
        client_id, *files = found
        host = f"{files[0]}.file.core.windows.net" if files else None
        return base64.b64encode(vm_cloud_init(args.spec, client_id, host).encode()).decode()

    known = [args.identity.client_id, *([args.files] if args.files is not None else [])]
    return pulumi.Output.all(*known).apply(encode)


def vm_cloud_init(spec: VmSpec, client_id: str, files_host: str | None) -> str:
    """Return the cloud-init text of a VM."""
    return cloud_init(idle_minutes=spec.idle_minutes, client_id=client_id, files_host=files_host, files_share="files", setup=spec.setup)
