"""What may differ between the two sides, each with its reason; everything else that differs is a fault."""

import re
from dataclasses import dataclass

CLUSTER, VM = "Microsoft.ContainerService/managedClusters", "Microsoft.Compute/virtualMachines"

NOBODY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHWxtLXHqUbFl9O9V2e7oYemzMLOoSNmHCymAdpV4MfQ"
"""The key of a VM without keys (terraform/modules/vm): its last 32 bytes are a SHA-256, so nobody can hold the private half."""


@dataclass(frozen=True)
class Difference:
    """A property that needn't be equal."""

    type: str
    """Of the resource; * is any."""
    path: str
    """A regular expression of the whole property path."""
    pulumi: str
    """A regular expression of the value there, as text; `unset` where there is none."""
    terraform: str
    reason: str

    def allows(self, type_: str, path: str, pulumi: str, terraform: str) -> bool:
        both = re.fullmatch(self.pulumi, pulumi) and re.fullmatch(self.terraform, terraform)
        return self.type in ("*", type_) and bool(re.fullmatch(self.path, path) and both)


ALLOWED = (
    Difference("*", r"(properties\.)?tags\.managed-by", "pulumi", "terraform", "the tag says who manages the resource"),
    Difference(
        CLUSTER,
        r"properties\.nodeProvisioningProfile\.mode",
        "unset",
        "Manual",
        "azurerm 5 wants the block; Manual is Azure's default",
    ),
    Difference(
        "Microsoft.Insights/components",
        r"properties\.(Flow_Type|IngestionMode|Request_Source)",
        "Bluefield|LogAnalytics|rest",
        "unset",
        "azurerm has no arguments; azure-native sends Azure's own defaults",
    ),
    Difference(
        "Microsoft.Network/virtualNetworks",
        r"properties\.enableVmProtection",
        "False",
        "unset",
        "azurerm has no argument; False is Azure's default",
    ),
    Difference(
        "Microsoft.Network/bastionHosts",
        r"properties\.enablePrivateOnlyBastion",
        "False",
        "unset",
        "azurerm has no argument; False is Azure's default",
    ),
    Difference(
        "Microsoft.Network/networkInterfaces",
        r".*\.subnet\.private(Endpoint|LinkService)NetworkPolicies",
        "(Dis|En)abled",
        "unset",
        "azure-native adds defaults to a reference; the subnet's own settings are the network's, and compared there",
    ),
    Difference(
        "Microsoft.Storage/storageAccounts/fileServices/shares",
        r"properties\.rootSquash",
        "NoRootSquash",
        "unset",
        "azurerm has no argument; NoRootSquash is Azure's default",
    ),
    Difference(
        VM,
        r"properties\.storageProfile\.osDisk\.deleteOption",
        "Delete",
        "unset",
        "azurerm deletes the disk itself with the VM (features.virtual_machine.delete_os_disk_on_deletion)",
    ),
    Difference(
        VM,
        r"properties\.networkProfile\.networkInterfaces\[.*\]\.deleteOption",
        "Delete",
        "unset",
        "in Terraform the network card is a resource of its own, and destroyed as one",
    ),
    Difference(
        VM,
        r"properties\.osProfile\.linuxConfiguration\.ssh\.publicKeys\[.*\]\.keyData",
        "ssh-rsa AAAA made-by-pulumi",
        re.escape(NOBODY),
        "without vm.ssh_public_keys: Pulumi makes a key and keeps it in its state; Terraform names one that nobody can hold",
    ),
)
