"""What stands below both targets: resource group, network, identities and roles, storage, registry."""

from ncdemo.infra.identity import ROLES
from ncdemo.infra.terraform.azurerm.kind import IP, PLACE, Convert, Kind, P, below, on, own, tail

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

SHARED: dict[str, Kind] = {
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
}
