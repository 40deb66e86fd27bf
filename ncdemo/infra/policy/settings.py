"""The rules that are one property and its allowed values: storage, registry, clusters, virtual machines.

Defaults that make a missing value a breach are the ones that azure-native 3.29 documents for the property.

python -m pytest tests/infra/test_policy.py -k storage
"""

from collections.abc import Iterator

from ncdemo.infra.policy.base import UNKNOWN, Inputs, Rule, read, rule, setting

ACCOUNT, REGISTRY, CLUSTER, MACHINE = (
    "storage:StorageAccount",
    "containerregistry:Registry",
    "containerservice:ManagedCluster",
    "compute:VirtualMachine",
)
INSIGHTS, WORKSPACE = "applicationinsights:Component", "operationalinsights:Workspace"
IDENTITIES = ("SystemAssigned", "UserAssigned", "SystemAssigned, UserAssigned")


@rule(
    "cluster-version-is-decided",
    "A cluster's version is somebody's decision: set kubernetesVersion, or autoUpgradeProfile.upgradeChannel other than none.",
    CLUSTER,
)
def cluster_version_is_decided(inputs: Inputs) -> Iterator[str]:
    if read(inputs, "kubernetesVersion") is None and read(inputs, "autoUpgradeProfile", "upgradeChannel") in (None, "none"):
        yield "neither kubernetesVersion nor an upgrade channel is set"


@rule(
    "logs-have-a-daily-cap",
    "Ingestion is paid by the GB: set workspaceCapping.dailyQuotaGb to a number above 0 (the default, -1, is no cap).",
    WORKSPACE,
)
def logs_have_a_daily_cap(inputs: Inputs) -> Iterator[str]:
    cap = read(inputs, "workspaceCapping", "dailyQuotaGb")
    if cap is not UNKNOWN and not (isinstance(cap, int | float) and cap > 0):
        yield f"workspaceCapping.dailyQuotaGb is {'missing' if cap is None else cap}"


RULES: tuple[Rule, ...] = (
    setting(
        "storage-no-shared-keys",
        ACCOUNT,
        "allowSharedKeyAccess",
        (False,),
        "Storage knows its callers by identity, not by a key: set allowSharedKeyAccess to false (the default is true).",
    ),
    setting(
        "storage-tls-1-2",
        ACCOUNT,
        "minimumTlsVersion",
        ("TLS1_2", "TLS1_3"),
        "Storage refuses old TLS: set minimumTlsVersion to TLS1_2 (the default is TLS 1.0).",
    ),
    setting(
        "storage-no-public-blobs",
        ACCOUNT,
        "allowBlobPublicAccess",
        # Missing means false today and meant true until 2023: said aloud, it holds for both.
        (False,),
        "No container of an account can be opened to the public: set allowBlobPublicAccess to false.",
    ),
    setting(
        "storage-https-only",
        ACCOUNT,
        "enableHttpsTrafficOnly",
        (True, None),
        "Storage is reached over HTTPS only: leave enableHttpsTrafficOnly out or true.",
    ),
    setting(
        "storage-container-is-private",
        "storage:BlobContainer",
        "publicAccess",
        ("None", None),
        "Blobs aren't public: leave publicAccess out or None.",
    ),
    setting(
        "registry-no-admin-user",
        REGISTRY,
        "adminUserEnabled",
        (False, None),
        "The registry has no shared password: leave adminUserEnabled false and give identities the AcrPull role.",
    ),
    setting(
        "registry-no-anonymous-pull",
        REGISTRY,
        "anonymousPullEnabled",
        (False, None),
        "Images are for this project's identities: leave anonymousPullEnabled false.",
    ),
    setting(
        "insights-no-local-auth",
        INSIGHTS,
        "disableLocalAuth",
        (True,),
        "Application Insights knows its writers by identity, not by its connection string: set disableLocalAuth to true (default: false).",
    ),
    setting(
        "logs-no-shared-keys",
        WORKSPACE,
        "features.disableLocalAuth",
        (True,),
        "A Log Analytics workspace has no usable keys: set features.disableLocalAuth to true (default: false).",
    ),
    logs_have_a_daily_cap,
    setting(
        "cluster-has-oidc-issuer",
        CLUSTER,
        "oidcIssuerProfile.enabled",
        (True,),
        "Pods reach Azure by federated identity: set oidcIssuerProfile.enabled to true.",
    ),
    setting(
        "cluster-has-workload-identity",
        CLUSTER,
        "securityProfile.workloadIdentity.enabled",
        (True,),
        "Pods reach Azure without stored secrets: set securityProfile.workloadIdentity.enabled to true.",
    ),
    cluster_version_is_decided,
    setting(
        "vm-no-passwords",
        MACHINE,
        "osProfile.linuxConfiguration.disablePasswordAuthentication",
        (True,),
        "Machines take SSH keys only: set osProfile.linuxConfiguration.disablePasswordAuthentication to true.",
    ),
    setting(
        "vm-has-identity",
        MACHINE,
        "identity.type",
        IDENTITIES,
        "A machine reaches Azure by its managed identity, not by a secret on its disk: set identity.type.",
    ),
)
