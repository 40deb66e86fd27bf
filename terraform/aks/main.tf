# AKS: a cluster, node pools for jobs, storage, registry, identities, and what watches the bill.

provider "azurerm" {
  # azurerm 5 registers none by default, azurerm 4 many: the same on both. docs/terraform.md names those that are needed.
  resource_provider_registrations = "none"
  # Storage accounts have no usable keys.
  storage_use_azuread = true

  features {}
}

data "azurerm_client_config" "current" {}

locals {
  place = {
    stack          = var.name
    location       = var.location
    resource_group = azurerm_resource_group.stack.name
    suffix         = coalesce(var.suffix, substr(sha256("${data.azurerm_client_config.current.subscription_id}/${var.name}"), 0, 6))
    tags           = local.tags
  }
  # Without the group's tags, nobody knows whose it is.
  tags    = merge({ project = "ncdemo", stack = var.name, "managed-by" = "terraform" }, local.expires, var.tags)
  expires = { for key, at in { expires = var.cost_guard.expires } : key => at if at != null }

  blob_roles = {
    checkpoints = { role = "Storage Blob Data Contributor", scope = module.storage.containers["checkpoints"] }
    metrics     = { role = "Storage Blob Data Contributor", scope = module.storage.containers["metrics"] }
    datasets    = { role = "Storage Blob Data Reader", scope = module.storage.containers["datasets"] }
  }

  insights_roles = {
    for one in module.application_insights : "application-insights" => { role = "Monitoring Metrics Publisher", scope = one.id }
  }
}

resource "azurerm_resource_group" "stack" {
  name     = "rg-ncdemo-${var.name}"
  location = var.location
  tags     = local.tags
}

module "network" {
  source        = "../modules/network"
  place         = local.place
  address_space = var.network.address_space
  ssh_from      = []
  bastion       = "none"
  vms           = false
}

module "storage" {
  source    = "../modules/storage"
  place     = local.place
  subnet_id = module.network.subnet_id
  storage   = var.storage
  mlflow    = var.monitoring.in_cluster
}

module "registry" {
  source = "../modules/registry"
  place  = local.place
}

module "identity_cluster" {
  source  = "../modules/identity"
  place   = local.place
  purpose = "cluster"
  grants  = { subnet = { role = "Network Contributor", scope = module.network.subnet_id } }
}

module "aks" {
  source        = "../modules/aks"
  place         = local.place
  aks           = var.aks
  identity_id   = module.identity_cluster.id
  subnet_id     = module.network.subnet_id
  registry_id   = module.registry.id
  azure_monitor = var.monitoring.azure_monitor

  depends_on = [module.identity_cluster]
}

module "gpu_pool" {
  source             = "../modules/gpu_pool"
  for_each           = { for pool in var.pools : pool.name => pool }
  place              = local.place
  pool               = each.value
  cluster_id         = module.aks.id
  kubernetes_version = var.aks.kubernetes_version
  subnet_id          = module.network.subnet_id
}

module "identity_jobs" {
  source  = "../modules/identity"
  place   = local.place
  purpose = "jobs"
  grants  = merge(local.blob_roles, local.insights_roles)
  trusts  = { for space in distinct(var.pools[*].namespace) : space => { service_account = "ncdemo-job", issuer = module.aks.issuer } }
}

module "identity_mlflow" {
  source   = "../modules/identity"
  for_each = toset(var.monitoring.in_cluster ? ["mlflow"] : [])
  place    = local.place
  purpose  = each.key
  grants   = { mlflow = { role = "Storage Blob Data Contributor", scope = module.storage.containers["mlflow"] } }
  trusts   = { monitoring = { service_account = "mlflow", issuer = module.aks.issuer } }
}

module "monitoring" {
  source       = "../modules/monitoring"
  for_each     = toset(var.monitoring.azure_monitor ? ["azure"] : [])
  place        = local.place
  cluster_id   = module.aks.id
  alert_rules  = var.alert_rules
  alert_emails = var.cost_guard.alert_emails
}

module "application_insights" {
  source     = "../modules/application_insights"
  for_each   = toset(var.monitoring.application_insights ? ["runs"] : [])
  place      = local.place
  gb_per_day = var.monitoring.application_insights_gb_per_day
}

module "cost_guard" {
  source             = "../modules/cost_guard"
  for_each           = toset(var.cost_guard.monthly_budget_usd == null ? [] : ["budget"])
  place              = local.place
  resource_group_id  = azurerm_resource_group.stack.id
  monthly_budget_usd = var.cost_guard.monthly_budget_usd
  alert_emails       = var.cost_guard.alert_emails
}
