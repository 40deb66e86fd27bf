# The cluster with its system pool; GPU pools are resources of their own (modules/gpu_pool).

locals {
  name = "aks-ncdemo-${var.place.stack}"
}

resource "azurerm_kubernetes_cluster" "stack" {
  #checkov:skip=CKV_AZURE_4:Container logs are read with kubectl, or by Azure Monitor's metrics.
  #checkov:skip=CKV_AZURE_6:api_allowed_from restricts it; the default asks for credentials from anywhere, so that a first try works.
  #checkov:skip=CKV_AZURE_115:A private API server needs a machine inside the network to deploy from.
  #checkov:skip=CKV_AZURE_116:The policy add-on is the subscription's choice; manifests are checked before.
  #checkov:skip=CKV_AZURE_117:Microsoft's keys: a disk encryption set is one more thing to lose.
  #checkov:skip=CKV_AZURE_141:With aks.admins it has no local accounts.
  #checkov:skip=CKV_AZURE_170:aks.tier is the user's choice and its price.
  #checkov:skip=CKV_AZURE_172:No secrets store driver is installed.
  #checkov:skip=CKV_AZURE_226:System nodes keep a managed disk; the smallest sizes have no local one.
  #checkov:skip=CKV_AZURE_227:Host encryption must first be registered in the subscription.
  #checkov:skip=CKV_AZURE_232:only_critical_addons_enabled is set.
  #checkov:skip=CKV2_AZURE_29:Azure CNI Overlay, by network_plugin_mode.
  name                = local.name
  location            = var.place.location
  resource_group_name = var.place.resource_group
  tags                = var.place.tags

  dns_prefix          = "ncdemo-${var.place.stack}"
  node_resource_group = "rg-ncdemo-${var.place.stack}-nodes"
  kubernetes_version  = var.aks.kubernetes_version
  sku_tier            = var.aks.tier

  role_based_access_control_enabled = true
  local_account_disabled            = length(var.aks.admins) > 0
  oidc_issuer_enabled               = true
  workload_identity_enabled         = true
  image_cleaner_enabled             = true
  image_cleaner_interval_hours      = 168
  automatic_upgrade_channel         = "patch"
  node_os_upgrade_channel           = "NodeImage"

  identity {
    type         = "UserAssigned"
    identity_ids = [var.identity_id]
  }

  default_node_pool {
    name                         = "system"
    type                         = "VirtualMachineScaleSets"
    vm_size                      = var.aks.system.vm_size
    node_count                   = var.aks.system.count
    os_sku                       = "Ubuntu"
    os_disk_type                 = "Managed"
    os_disk_size_gb              = 128
    vnet_subnet_id               = var.subnet_id
    node_public_ip_enabled       = false
    max_pods                     = 60
    node_labels                  = { "ncdemo.io/pool" = "system" }
    only_critical_addons_enabled = true
    temporary_name_for_rotation  = "systemtmp"

    upgrade_settings {
      max_surge = "1"
    }
  }

  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium"
    service_cidr        = "10.0.0.0/16"
    dns_service_ip      = "10.0.0.10"
    pod_cidr            = "10.244.0.0/16"
    load_balancer_sku   = "standard"
    outbound_type       = "loadBalancer"
  }

  # azurerm 5 wants it said; pools are declared, not made by Azure.
  node_provisioning_profile {
    mode = "Manual"
  }

  auto_scaler_profile {
    # GPU nodes go soon after their last job; `unneeded` counts from the last pod.
    scale_down_unneeded           = "10m"
    scale_down_delay_after_add    = "10m"
    skip_nodes_with_local_storage = false
    expander                      = "least-waste"
  }

  storage_profile {
    disk_driver_enabled = true
    file_driver_enabled = true
  }

  dynamic "azure_active_directory_role_based_access_control" {
    for_each = length(var.aks.admins) > 0 ? ["azure"] : []
    content {
      azure_rbac_enabled = true
    }
  }

  dynamic "api_server_access_profile" {
    for_each = length(var.aks.api_allowed_from) > 0 ? [var.aks.api_allowed_from] : []
    content {
      authorized_ip_ranges = api_server_access_profile.value
    }
  }

  dynamic "monitor_metrics" {
    for_each = var.azure_monitor ? ["prometheus"] : []
    content {}
  }
}

resource "azurerm_role_assignment" "pull" {
  name                 = uuidv5("url", "ncdemo:kubelet-ncdemo-${var.place.stack}:AcrPull")
  scope                = var.registry_id
  role_definition_name = "AcrPull"
  # A mocked cluster has no kubelet, a real one always does.
  principal_id   = coalesce(one(azurerm_kubernetes_cluster.stack.kubelet_identity[*].object_id), "00000000-0000-0000-0000-000000000000")
  principal_type = "ServicePrincipal"
}

resource "azurerm_role_assignment" "admin" {
  for_each             = toset(var.aks.admins)
  name                 = uuidv5("url", "ncdemo:${local.name}:admin-${each.key}:Azure Kubernetes Service RBAC Cluster Admin")
  scope                = azurerm_kubernetes_cluster.stack.id
  role_definition_name = "Azure Kubernetes Service RBAC Cluster Admin"
  principal_id         = each.key
}
