"""The storage account: reached by identity alone, deleted blobs come back, old checkpoints go; and the optional NFS share."""

from dataclasses import dataclass

import pulumi
from pulumi_azure_native import storage

from ncdemo.infra.component import Component, Place
from ncdemo.spec.run_folder import CHECKPOINTS, DATASETS, METRICS, MLFLOW
from ncdemo.spec.services import Storage as StorageSpec

SHARE = "files"


@dataclass(frozen=True)
class StorageArgs:
    place: Place
    spec: StorageSpec
    subnet_id: pulumi.Input[str]
    """Nodes or VMs: always let in."""
    mlflow: bool
    """Whether an MLflow server keeps its artifacts here."""


class Storage(Component):
    """Blob account with its containers and rules, and a second account for the NFS share if asked for."""

    KIND = "storage"
    id: pulumi.Output[str]
    account: pulumi.Output[str]
    containers: dict[str, pulumi.Output[str]]
    """Container -> resource id, the scope of roles."""
    files_account: pulumi.Output[str] | None

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        place, spec = args.place, args.spec
        account = self.make(
            storage.StorageAccount,
            "blob",
            account_name=place.global_name("st"),
            resource_group_name=place.resource_group,
            location=place.location,
            kind="StorageV2",
            sku=storage.SkuArgs(name=f"Standard_{spec.replication}"),
            access_tier="Hot",
            allow_shared_key_access=False,
            default_to_o_auth_authentication=True,
            allow_blob_public_access=False,
            allow_cross_tenant_replication=False,
            minimum_tls_version="TLS1_2",
            enable_https_traffic_only=True,
            network_rule_set=network_rules(spec.allowed_from, args.subnet_id),
            tags=place.tags,
        )
        where = {"account_name": account.name, "resource_group_name": place.resource_group}
        kept = storage.DeleteRetentionPolicyArgs(enabled=True, days=spec.keep_deleted_days)
        service = self.make(
            storage.BlobServiceProperties,
            "blob-service",
            blob_services_name="default",
            is_versioning_enabled=True,
            delete_retention_policy=kept,
            container_delete_retention_policy=kept,
            **where,
        )
        self.make(
            storage.ManagementPolicy,
            "lifecycle",
            management_policy_name="default",
            policy=lifecycle(spec),
            # Rules on versions want versioning first.
            options=pulumi.ResourceOptions(depends_on=[service]),
            **where,
        )
        names = [CHECKPOINTS, DATASETS, METRICS, *([MLFLOW] if args.mlflow else [])]
        made = {n: self.make(storage.BlobContainer, f"container-{n}", container_name=n, public_access="None", **where) for n in names}
        files = self._files(args) if spec.files_gib else None
        self.done(id=account.id, account=account.name, containers={n: c.id for n, c in made.items()}, files_account=files)

    def _files(self, args: StorageArgs) -> pulumi.Output[str]:
        """NFS knows no TLS and no keys: what guards the share is that nothing but the subnet reaches its account."""
        account = self.make(
            storage.StorageAccount,
            "nfs",
            account_name=args.place.global_name("nf"),
            resource_group_name=args.place.resource_group,
            location=args.place.location,
            kind="FileStorage",
            sku=storage.SkuArgs(name=f"Premium_{args.spec.replication}"),
            allow_shared_key_access=False,
            allow_blob_public_access=False,
            minimum_tls_version="TLS1_2",
            enable_https_traffic_only=False,
            network_rule_set=network_rules((), args.subnet_id, closed=True),
            tags=args.place.tags,
        )
        share = self.make(
            storage.FileShare,
            "share",
            account_name=account.name,
            resource_group_name=args.place.resource_group,
            share_name=SHARE,
            enabled_protocols="NFS",
            share_quota=args.spec.files_gib,
            root_squash="NoRootSquash",
        )
        # Through the share, so that what mounts it waits for it.
        return pulumi.Output.all(account.name, share.id).apply(lambda both: both[0])


def network_rules(allowed_from: tuple[str, ...], subnet_id: pulumi.Input[str], *, closed: bool = False) -> storage.NetworkRuleSetArgs:
    """Return the account's firewall; without an allow-list it is open, and roles alone decide."""
    return storage.NetworkRuleSetArgs(
        default_action="Deny" if allowed_from or closed else "Allow",
        bypass="AzureServices",
        ip_rules=[storage.IPRuleArgs(i_p_address_or_range=cidr.removesuffix("/32")) for cidr in allowed_from],
        virtual_network_rules=[storage.VirtualNetworkRuleArgs(virtual_network_resource_id=subnet_id)],
    )


def lifecycle(spec: StorageSpec) -> storage.ManagementPolicySchemaArgs:
    """Return the rules that delete checkpoints nobody touched, and old versions of any blob."""
    blobs = ["blockBlob"]
    old_checkpoints = storage.ManagementPolicyRuleArgs(
        name="delete-old-checkpoints",
        type="Lifecycle",
        enabled=True,
        definition=storage.ManagementPolicyDefinitionArgs(
            filters=storage.ManagementPolicyFilterArgs(blob_types=blobs, prefix_match=[f"{CHECKPOINTS}/"]),
            actions=storage.ManagementPolicyActionArgs(
                base_blob=storage.ManagementPolicyBaseBlobArgs(
                    delete=storage.DateAfterModificationArgs(days_after_modification_greater_than=spec.checkpoint_days)
                )
            ),
        ),
    )
    old_versions = storage.ManagementPolicyRuleArgs(
        name="delete-old-versions",
        type="Lifecycle",
        enabled=True,
        definition=storage.ManagementPolicyDefinitionArgs(
            filters=storage.ManagementPolicyFilterArgs(blob_types=blobs),
            actions=storage.ManagementPolicyActionArgs(
                version=storage.ManagementPolicyVersionArgs(
                    delete=storage.DateAfterCreationArgs(days_after_creation_greater_than=spec.keep_deleted_days)
                )
            ),
        ),
    )
    return storage.ManagementPolicySchemaArgs(rules=[old_checkpoints, old_versions])
