# One node pool for jobs: nothing while idle, tainted so that only jobs come, spot if asked for.
# Taints and labels are declared here, as the autoscaler reads them from AKS to start a first node.

locals {
  gpu = var.pool.gpus > 0
}

resource "azurerm_kubernetes_cluster_node_pool" "jobs" {
  #checkov:skip=CKV_AZURE_168:30 pods are enough for jobs and agents, and each costs an address.
  #checkov:skip=CKV_AZURE_227:Host encryption must first be registered in the subscription.
  name                  = var.pool.name
  kubernetes_cluster_id = var.cluster_id
  tags                  = var.place.tags

  mode                        = "User"
  vm_size                     = var.pool.vm_size
  auto_scaling_enabled        = true
  node_count                  = var.pool.min_count
  min_count                   = var.pool.min_count
  max_count                   = var.pool.max_count
  scale_down_mode             = "Delete"
  zones                       = length(var.pool.zones) > 0 ? var.pool.zones : null
  os_type                     = "Linux"
  os_sku                      = "Ubuntu"
  os_disk_type                = var.pool.local_disk ? "Ephemeral" : "Managed"
  os_disk_size_gb             = var.pool.os_disk_gib
  kubelet_disk_type           = "OS"
  max_pods                    = 30
  vnet_subnet_id              = var.subnet_id
  node_public_ip_enabled      = false
  orchestrator_version        = var.kubernetes_version
  gpu_driver                  = local.gpu ? title(var.pool.driver) : null
  temporary_name_for_rotation = "${substr(var.pool.name, 0, 9)}tmp"

  node_labels = merge(
    { "ncdemo.io/pool" = var.pool.name },
    local.gpu ? { "ncdemo.io/gpu" = "true" } : {},
    var.pool.spot ? { "kubernetes.azure.com/scalesetpriority" = "spot" } : {},
  )
  node_taints = concat(
    local.gpu ? ["nvidia.com/gpu=present:NoSchedule"] : [],
    var.pool.spot ? ["kubernetes.azure.com/scalesetpriority=spot:NoSchedule"] : [],
  )

  priority        = var.pool.spot ? "Spot" : "Regular"
  eviction_policy = var.pool.spot ? "Delete" : null
  # -1: up to the pay-as-you-go price, never evicted for the price.
  spot_max_price = var.pool.spot ? coalesce(var.pool.max_price_usd_per_h, -1) : null

  dynamic "upgrade_settings" {
    for_each = var.pool.spot ? [] : ["in place"]
    content {
      # A surge node would need quota for one more GPU machine.
      max_surge       = "0"
      max_unavailable = "1"
    }
  }

  lifecycle {
    # The autoscaler's business after the first moment.
    ignore_changes = [node_count]
  }
}
