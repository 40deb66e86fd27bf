"""What each azurerm argument is in Azure's own terms: the type, the property, and how the value is converted.

A path of `None` is part of the resource's address. What azurerm itself always sends stands in `fixed`.
Sources: the azurerm provider's documentation and its expand functions (4.81, 5.2), and Azure's resource schemas.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ncdemo.infra.identity import ROLES
from ncdemo.infra.terraform.native import cloud_init

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Convert:
    """Where an argument goes when its value changes on the way."""

    path: str
    of: Callable[[Any], Any]


@dataclass(frozen=True)
class Kind:
    """One azurerm type."""

    azure: str
    name: Callable[[Arguments], str]
    paths: dict[str, str | Convert | None]
    """Argument, blocks dotted, -> Azure's property."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Sent by azurerm whatever the arguments."""
    keys: dict[str, str] = field(default_factory=dict)
    """Repeated block -> the argument that names its items."""
    when: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Argument -> what azurerm sends along with it."""


def tail(value: Any, parts: int = 1) -> str:
    """Return the last names of an id."""
    return "/".join(str(value).split("/")[-1 - 2 * (parts - 1) :: 2])


def on(value: bool, yes: str = "Enabled", no: str = "Disabled") -> str:
    return yes if value else no


P = "properties."
PLACE: dict[str, str | Convert | None] = {"name": None, "resource_group_name": None, "location": "location", "tags": "tags"}
IDENTITY: dict[str, str | Convert | None] = {"identity.type": "identity.type", "identity.identity_ids": "identity.userAssignedIdentities"}


def own(arguments: Arguments) -> str:
    return str(arguments["name"])


def below(parent: str) -> Callable[[Arguments], str]:
    return lambda arguments: f"{tail(arguments[parent])}/{arguments['name']}"


def prometheus_rule(rule: Arguments) -> dict[str, Any]:
    """Return a rule as Azure has it; its list has an order, and rules that record have no names of their own."""
    same = ("alert", "record", "enabled", "expression", "for", "severity", "labels", "annotations")
    made = {name: rule[name] for name in same if rule.get(name) is not None}
    if actions := [{"actionGroupId": one["action_group_id"]} for one in rule.get("action", [])]:
        made["actions"] = actions
    for one in rule.get("alert_resolution", []):
        made["resolveConfiguration"] = {"autoResolved": one["auto_resolved"], "timeToResolve": one["time_to_resolve"]}
    return made


POOL = P + "agentPoolProfiles[system]."
ROLE = Convert(P + "roleDefinitionId", lambda name: f"role:{ROLES[name]}")
STORAGE: dict[str, str | Convert | None] = {
    "account_kind": "kind",
    "access_tier": P + "accessTier",
    "shared_access_key_enabled": P + "allowSharedKeyAccess",
    "default_to_oauth_authentication": P + "defaultToOAuthAuthentication",
    "allow_nested_items_to_be_public": P + "allowBlobPublicAccess",
    "cross_tenant_replication_enabled": P + "allowCrossTenantReplication",
    "min_tls_version": P + "minimumTlsVersion",
    "https_traffic_only_enabled": P + "supportsHttpsTrafficOnly",
    "network_rules.default_action": P + "networkAcls.defaultAction",
    "network_rules.bypass": Convert(P + "networkAcls.bypass", ", ".join),
    "network_rules.ip_rules": Convert(P + "networkAcls.ipRules", lambda all_: [{"value": one, "action": "Allow"} for one in all_]),
    "network_rules.virtual_network_subnet_ids": Convert(
        P + "networkAcls.virtualNetworkRules", lambda all_: [{"id": one, "action": "Allow"} for one in all_]
    ),
    # Two arguments make the one SKU; blob_properties are a resource of Azure's own (storage_parts).
    "account_tier": None,
    "account_replication_type": None,
    "blob_properties": None,
}
IP = P + "ipConfigurations[{key}]."

KINDS: dict[str, Kind] = {
    "azurerm_resource_group": Kind("Microsoft.Resources/resourceGroups", own, {**PLACE}),
    "azurerm_network_security_group": Kind(
        "Microsoft.Network/networkSecurityGroups",
        own,
        {
            **PLACE,
            **{
                f"security_rule.{argument}": f"{P}securityRules[{{key}}].properties.{name}"
                for argument, name in {
                    "priority": "priority",
                    "direction": "direction",
                    "access": "access",
                    "protocol": "protocol",
                    "source_address_prefixes": "sourceAddressPrefixes",
                    "source_port_range": "sourcePortRange",
                    "destination_address_prefix": "destinationAddressPrefix",
                    "destination_port_range": "destinationPortRange",
                }.items()
            },
            "security_rule.name": P + "securityRules[{key}].name",
        },
        keys={"security_rule": "name"},
    ),
    "azurerm_virtual_network": Kind(
        "Microsoft.Network/virtualNetworks",
        own,
        {
            **PLACE,
            "address_space": P + "addressSpace.addressPrefixes",
            "subnet.name": P + "subnets[{key}].name",
            "subnet.address_prefixes": Convert(P + "subnets[{key}].properties.addressPrefix", lambda one: one[0]),
            "subnet.security_group": P + "subnets[{key}].properties.networkSecurityGroup.id",
            # azurerm 4 has the first, azurerm 5 the second; they say the same (tests/terraform).
            "subnet.service_endpoints": Convert(
                P + "subnets[{key}].properties.serviceEndpoints", lambda all_: [{"service": one} for one in all_]
            ),
            "subnet.service_endpoint": Convert(
                P + "subnets[{key}].properties.serviceEndpoints", lambda all_: [{"service": one["service"]} for one in all_]
            ),
            "subnet.service_endpoint_policy_ids": P + "subnets[{key}].properties.serviceEndpointPolicies",
            "subnet.delegation": P + "subnets[{key}].properties.delegations",
            "subnet.private_endpoint_network_policies": P + "subnets[{key}].properties.privateEndpointNetworkPolicies",
            "subnet.private_link_service_network_policies_enabled": Convert(
                P + "subnets[{key}].properties.privateLinkServiceNetworkPolicies", on
            ),
            "subnet.default_outbound_access_enabled": P + "subnets[{key}].properties.defaultOutboundAccess",
        },
        fixed={P + "enableDdosProtection": False},
        keys={"subnet": "name"},
    ),
    "azurerm_public_ip": Kind(
        "Microsoft.Network/publicIPAddresses",
        own,
        {**PLACE, "sku": "sku.name", "allocation_method": P + "publicIPAllocationMethod"},
    ),
    "azurerm_bastion_host": Kind(
        "Microsoft.Network/bastionHosts",
        own,
        {
            **PLACE,
            "sku": "sku.name",
            "virtual_network_id": P + "virtualNetwork.id",
            "copy_paste_enabled": Convert(P + "disableCopyPaste", lambda yes: not yes),
            "file_copy_enabled": P + "enableFileCopy",
            "ip_connect_enabled": P + "enableIpConnect",
            "kerberos_enabled": P + "enableKerberos",
            "session_recording_enabled": P + "enableSessionRecording",
            "shareable_link_enabled": P + "enableShareableLink",
            "tunneling_enabled": P + "enableTunneling",
            "ip_configuration.name": IP + "name",
            "ip_configuration.subnet_id": IP + "properties.subnet.id",
            "ip_configuration.public_ip_address_id": IP + "properties.publicIPAddress.id",
        },
        keys={"ip_configuration": "name"},
    ),
    "azurerm_user_assigned_identity": Kind("Microsoft.ManagedIdentity/userAssignedIdentities", own, {**PLACE}),
    "azurerm_federated_identity_credential": Kind(
        "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials",
        below("user_assigned_identity_id"),
        {
            "name": None,
            "user_assigned_identity_id": None,
            "issuer": P + "issuer",
            "subject": P + "subject",
            "audience": P + "audiences",
        },
    ),
    "azurerm_role_assignment": Kind(
        "Microsoft.Authorization/roleAssignments",
        own,
        {
            "name": None,
            "scope": P + "scope",
            "role_definition_name": ROLE,
            "principal_id": P + "principalId",
            "principal_type": P + "principalType",
        },
    ),
    "azurerm_storage_account": Kind("Microsoft.Storage/storageAccounts", own, {**PLACE, **STORAGE}),
    "azurerm_storage_container": Kind(
        "Microsoft.Storage/storageAccounts/blobServices/containers",
        below("storage_account_id"),
        {
            "name": None,
            "storage_account_id": None,
            "container_access_type": Convert(
                P + "publicAccess", lambda kind: {"private": "None", "blob": "Blob", "container": "Container"}[kind]
            ),
        },
    ),
    "azurerm_storage_share": Kind(
        "Microsoft.Storage/storageAccounts/fileServices/shares",
        below("storage_account_id"),
        {"name": None, "storage_account_id": None, "enabled_protocol": P + "enabledProtocols", "quota": P + "shareQuota"},
    ),
    "azurerm_storage_management_policy": Kind(
        "Microsoft.Storage/storageAccounts/managementPolicies",
        lambda arguments: tail(arguments["storage_account_id"]),
        {
            "storage_account_id": None,
            **{
                f"rule.{argument}": f"{P}policy.rules[{{key}}].{name}"
                for argument, name in {
                    "name": "name",
                    "enabled": "enabled",
                    "filters.blob_types": "definition.filters.blobTypes",
                    "filters.prefix_match": "definition.filters.prefixMatch",
                    "actions.base_blob.delete_after_days_since_modification_greater_than": (
                        "definition.actions.baseBlob.delete.daysAfterModificationGreaterThan"
                    ),
                    "actions.version.delete_after_days_since_creation": ("definition.actions.version.delete.daysAfterCreationGreaterThan"),
                }.items()
            },
        },
        keys={"rule": "name"},
        when={"rule.name": {P + "policy.rules[{key}].type": "Lifecycle"}},
    ),
    "azurerm_container_registry": Kind(
        "Microsoft.ContainerRegistry/registries",
        own,
        {
            **PLACE,
            "sku": "sku.name",
            "admin_enabled": P + "adminUserEnabled",
            "anonymous_pull_enabled": P + "anonymousPullEnabled",
            "network_rule_bypass_option": P + "networkRuleBypassOptions",
            "public_network_access_enabled": Convert(P + "publicNetworkAccess", on),
            "zone_redundancy_enabled": Convert(P + "zoneRedundancy", on),
        },
    ),
    "azurerm_kubernetes_cluster": Kind(
        "Microsoft.ContainerService/managedClusters",
        own,
        {
            **PLACE,
            **IDENTITY,
            "dns_prefix": P + "dnsPrefix",
            "node_resource_group": P + "nodeResourceGroup",
            "kubernetes_version": P + "kubernetesVersion",
            "sku_tier": "sku.tier",
            "role_based_access_control_enabled": P + "enableRBAC",
            "local_account_disabled": P + "disableLocalAccounts",
            "oidc_issuer_enabled": P + "oidcIssuerProfile.enabled",
            "workload_identity_enabled": P + "securityProfile.workloadIdentity.enabled",
            "image_cleaner_enabled": P + "securityProfile.imageCleaner.enabled",
            "image_cleaner_interval_hours": P + "securityProfile.imageCleaner.intervalHours",
            "automatic_upgrade_channel": P + "autoUpgradeProfile.upgradeChannel",
            "node_os_upgrade_channel": P + "autoUpgradeProfile.nodeOSUpgradeChannel",
            "default_node_pool.name": POOL + "name",
            "default_node_pool.type": POOL + "type",
            "default_node_pool.vm_size": POOL + "vmSize",
            "default_node_pool.node_count": POOL + "count",
            "default_node_pool.os_sku": POOL + "osSKU",
            "default_node_pool.os_disk_type": POOL + "osDiskType",
            "default_node_pool.os_disk_size_gb": POOL + "osDiskSizeGB",
            "default_node_pool.vnet_subnet_id": POOL + "vnetSubnetID",
            "default_node_pool.node_public_ip_enabled": POOL + "enableNodePublicIP",
            "default_node_pool.max_pods": POOL + "maxPods",
            "default_node_pool.node_labels": POOL + "nodeLabels",
            "default_node_pool.only_critical_addons_enabled": Convert(
                POOL + "nodeTaints", lambda yes: ["CriticalAddonsOnly=true:NoSchedule"] if yes else []
            ),
            # A name that azurerm uses while it replaces the pool; nothing of it is in Azure.
            "default_node_pool.temporary_name_for_rotation": None,
            "default_node_pool.upgrade_settings.max_surge": POOL + "upgradeSettings.maxSurge",
            "network_profile.network_plugin": P + "networkProfile.networkPlugin",
            "network_profile.network_plugin_mode": P + "networkProfile.networkPluginMode",
            "network_profile.network_data_plane": P + "networkProfile.networkDataplane",
            "network_profile.network_policy": P + "networkProfile.networkPolicy",
            "network_profile.service_cidr": P + "networkProfile.serviceCidr",
            "network_profile.dns_service_ip": P + "networkProfile.dnsServiceIP",
            "network_profile.pod_cidr": P + "networkProfile.podCidr",
            "network_profile.load_balancer_sku": P + "networkProfile.loadBalancerSku",
            "network_profile.outbound_type": P + "networkProfile.outboundType",
            "node_provisioning_profile.mode": P + "nodeProvisioningProfile.mode",
            "auto_scaler_profile.scale_down_unneeded": P + "autoScalerProfile.scale-down-unneeded-time",
            "auto_scaler_profile.scale_down_delay_after_add": P + "autoScalerProfile.scale-down-delay-after-add",
            "auto_scaler_profile.skip_nodes_with_local_storage": Convert(
                P + "autoScalerProfile.skip-nodes-with-local-storage", lambda yes: on(yes, "true", "false")
            ),
            "auto_scaler_profile.expander": P + "autoScalerProfile.expander",
            "storage_profile.disk_driver_enabled": P + "storageProfile.diskCSIDriver.enabled",
            "storage_profile.file_driver_enabled": P + "storageProfile.fileCSIDriver.enabled",
            "azure_active_directory_role_based_access_control.azure_rbac_enabled": P + "aadProfile.enableAzureRBAC",
            "api_server_access_profile.authorized_ip_ranges": P + "apiServerAccessProfile.authorizedIPRanges",
            "monitor_metrics": Convert(P + "azureMonitorProfile.metrics.enabled", lambda block: True),
        },
        fixed={"sku.name": "Base", POOL + "mode": "System", POOL + "osType": "Linux"},
        when={"azure_active_directory_role_based_access_control.azure_rbac_enabled": {P + "aadProfile.managed": True}},
    ),
    "azurerm_kubernetes_cluster_node_pool": Kind(
        "Microsoft.ContainerService/managedClusters/agentPools",
        below("kubernetes_cluster_id"),
        {
            "name": None,
            "kubernetes_cluster_id": None,
            "temporary_name_for_rotation": None,
            "tags": P + "tags",
            "mode": P + "mode",
            "vm_size": P + "vmSize",
            "auto_scaling_enabled": P + "enableAutoScaling",
            "node_count": P + "count",
            "min_count": P + "minCount",
            "max_count": P + "maxCount",
            "scale_down_mode": P + "scaleDownMode",
            "zones": P + "availabilityZones",
            "os_type": P + "osType",
            "os_sku": P + "osSKU",
            "os_disk_type": P + "osDiskType",
            "os_disk_size_gb": P + "osDiskSizeGB",
            "kubelet_disk_type": P + "kubeletDiskType",
            "max_pods": P + "maxPods",
            "vnet_subnet_id": P + "vnetSubnetID",
            "node_public_ip_enabled": P + "enableNodePublicIP",
            "orchestrator_version": P + "orchestratorVersion",
            "gpu_driver": P + "gpuProfile.driver",
            "node_labels": P + "nodeLabels",
            "node_taints": P + "nodeTaints",
            "priority": P + "scaleSetPriority",
            "eviction_policy": P + "scaleSetEvictionPolicy",
            "spot_max_price": P + "spotMaxPrice",
            "upgrade_settings.max_surge": P + "upgradeSettings.maxSurge",
            "upgrade_settings.max_unavailable": P + "upgradeSettings.maxUnavailable",
        },
        fixed={P + "type": "VirtualMachineScaleSets"},
    ),
    "azurerm_network_interface": Kind(
        "Microsoft.Network/networkInterfaces",
        own,
        {
            **PLACE,
            "accelerated_networking_enabled": P + "enableAcceleratedNetworking",
            "ip_configuration.name": IP + "name",
            "ip_configuration.subnet_id": IP + "properties.subnet.id",
            "ip_configuration.private_ip_address_allocation": IP + "properties.privateIPAllocationMethod",
            "ip_configuration.public_ip_address_id": IP + "properties.publicIPAddress.id",
        },
        keys={"ip_configuration": "name"},
    ),
    "azurerm_linux_virtual_machine": Kind(
        "Microsoft.Compute/virtualMachines",
        own,
        {
            **PLACE,
            **IDENTITY,
            "size": P + "hardwareProfile.vmSize",
            "zone": Convert("zones", lambda one: [one]),
            "computer_name": P + "osProfile.computerName",
            "admin_username": P + "osProfile.adminUsername",
            "disable_password_authentication": P + "osProfile.linuxConfiguration.disablePasswordAuthentication",
            "provision_vm_agent": P + "osProfile.linuxConfiguration.provisionVMAgent",
            "custom_data": Convert(P + "osProfile.customData", cloud_init),
            "network_interface_ids": Convert(
                P + "networkProfile.networkInterfaces", lambda ids: [{"id": one, "primary": at == 0} for at, one in enumerate(ids)]
            ),
            "priority": P + "priority",
            "eviction_policy": P + "evictionPolicy",
            "max_bid_price": P + "billingProfile.maxPrice",
            "admin_ssh_key": Convert(
                P + "osProfile.linuxConfiguration.ssh.publicKeys",
                lambda keys: [{"path": f"/home/{one['username']}/.ssh/authorized_keys", "keyData": one["public_key"]} for one in keys],
            ),
            "source_image_reference.publisher": P + "storageProfile.imageReference.publisher",
            "source_image_reference.offer": P + "storageProfile.imageReference.offer",
            "source_image_reference.sku": P + "storageProfile.imageReference.sku",
            "source_image_reference.version": P + "storageProfile.imageReference.version",
            "os_disk.name": P + "storageProfile.osDisk.name",
            "os_disk.caching": P + "storageProfile.osDisk.caching",
            "os_disk.disk_size_gb": P + "storageProfile.osDisk.diskSizeGB",
            "os_disk.storage_account_type": P + "storageProfile.osDisk.managedDisk.storageAccountType",
            "boot_diagnostics": Convert(P + "diagnosticsProfile.bootDiagnostics.enabled", lambda block: True),
        },
        fixed={P + "storageProfile.osDisk.createOption": "FromImage"},
    ),
    "azurerm_dev_test_global_vm_shutdown_schedule": Kind(
        "Microsoft.DevTestLab/schedules",
        lambda arguments: f"shutdown-computevm-{tail(arguments['virtual_machine_id'])}",
        {
            "location": "location",
            "tags": "tags",
            "virtual_machine_id": P + "targetResourceId",
            "enabled": Convert(P + "status", on),
            "daily_recurrence_time": P + "dailyRecurrence.time",
            "timezone": P + "timeZoneId",
            "notification_settings.enabled": Convert(P + "notificationSettings.status", on),
        },
        fixed={P + "taskType": "ComputeVmShutdownTask"},
    ),
    "azurerm_consumption_budget_resource_group": Kind(
        "Microsoft.Consumption/budgets",
        own,
        {
            "name": None,
            "resource_group_id": P + "scope",
            "amount": P + "amount",
            "time_grain": P + "timeGrain",
            "time_period.start_date": P + "timePeriod.startDate",
            **{
                f"notification.{argument}": f"{P}notifications.{{key}}.{name}"
                for argument, name in {
                    "enabled": "enabled",
                    "operator": "operator",
                    "threshold": "threshold",
                    "threshold_type": "thresholdType",
                    "contact_emails": "contactEmails",
                }.items()
            },
        },
        fixed={P + "category": "Cost"},
        keys={"notification": "threshold_type,threshold"},
    ),
    "azurerm_log_analytics_workspace": Kind(
        "Microsoft.OperationalInsights/workspaces",
        own,
        {
            **PLACE,
            "sku": P + "sku.name",
            "retention_in_days": P + "retentionInDays",
            "daily_quota_gb": P + "workspaceCapping.dailyQuotaGb",
            "local_authentication_enabled": Convert(P + "features.disableLocalAuth", lambda yes: not yes),
            "allow_resource_only_permissions": P + "features.enableLogAccessUsingOnlyResourcePermissions",
        },
    ),
    "azurerm_application_insights": Kind(
        "Microsoft.Insights/components",
        own,
        {
            **PLACE,
            "application_type": P + "Application_Type",
            "workspace_id": P + "WorkspaceResourceId",
            "local_authentication_enabled": Convert(P + "DisableLocalAuth", lambda yes: not yes),
            "internet_ingestion_enabled": Convert(P + "publicNetworkAccessForIngestion", on),
            "internet_query_enabled": Convert(P + "publicNetworkAccessForQuery", on),
        },
        # azurerm sends the type as the kind too.
        when={"application_type": {"kind": "other"}},
    ),
    "azurerm_monitor_action_group": Kind(
        "Microsoft.Insights/actionGroups",
        own,
        {
            **PLACE,
            "short_name": P + "groupShortName",
            "enabled": P + "enabled",
            **{
                f"email_receiver.{argument}": f"{P}emailReceivers[{{key}}].{name}"
                for argument, name in {
                    "name": "name",
                    "email_address": "emailAddress",
                    "use_common_alert_schema": "useCommonAlertSchema",
                }.items()
            },
        },
        keys={"email_receiver": "name"},
    ),
    "azurerm_monitor_alert_prometheus_rule_group": Kind(
        "Microsoft.AlertsManagement/prometheusRuleGroups",
        own,
        {
            **PLACE,
            "rule_group_enabled": P + "enabled",
            "interval": P + "interval",
            "scopes": P + "scopes",
            "rule": Convert(P + "rules", lambda all_: [prometheus_rule(one) for one in all_]),
        },
    ),
    "azurerm_monitor_workspace": Kind("Microsoft.Monitor/accounts", own, {**PLACE}),
    "azurerm_monitor_data_collection_endpoint": Kind(
        "Microsoft.Insights/dataCollectionEndpoints",
        own,
        {
            **PLACE,
            "kind": "kind",
            "public_network_access_enabled": Convert(P + "networkAcls.publicNetworkAccess", on),
        },
    ),
    "azurerm_monitor_data_collection_rule": Kind(
        "Microsoft.Insights/dataCollectionRules",
        own,
        {
            **PLACE,
            "kind": "kind",
            "data_collection_endpoint_id": P + "dataCollectionEndpointId",
            "data_sources.prometheus_forwarder": P + "dataSources.prometheusForwarder",
            "destinations.monitor_account": Convert(
                P + "destinations.monitoringAccounts",
                lambda all_: [{"name": one["name"], "accountResourceId": one["monitor_account_id"]} for one in all_],
            ),
            "data_flow": P + "dataFlows",
        },
    ),
    "azurerm_monitor_data_collection_rule_association": Kind(
        "Microsoft.Insights/dataCollectionRuleAssociations",
        own,
        {"name": None, "target_resource_id": P + "resourceUri", "data_collection_rule_id": P + "dataCollectionRuleId"},
    ),
}
