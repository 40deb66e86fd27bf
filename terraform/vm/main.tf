# VMs: machines for jobs, storage, registry, an identity, and what watches the bill.

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

locals {
  # Pool by pool, each VM by what the other VMs call it.
  vms = merge([for pool in var.pools : {
    for index in range(pool.max_count) : "${pool.name}-${index}" => { pool = pool, index = index }
  }]...)
}

module "network" {
  source        = "../modules/network"
  place         = local.place
  address_space = var.network.address_space
  ssh_from      = var.network.ssh_from
  bastion       = var.network.bastion
  vms           = true
}

module "storage" {
  source    = "../modules/storage"
  place     = local.place
  subnet_id = module.network.subnet_id
  storage   = var.storage
  mlflow    = false
}

module "registry" {
  source = "../modules/registry"
  place  = local.place
}

module "identity_jobs" {
  source  = "../modules/identity"
  place   = local.place
  purpose = "jobs"
  grants  = merge(local.blob_roles, local.insights_roles, { pull = { role = "AcrPull", scope = module.registry.id } })
}

module "vm" {
  source         = "../modules/vm"
  for_each       = local.vms
  place          = local.place
  pool           = each.value.pool
  index          = each.value.index
  vm             = var.vm
  subnet_id      = module.network.subnet_id
  identity       = { id = module.identity_jobs.id, client_id = module.identity_jobs.client_id, principal_id = module.identity_jobs.principal_id }
  public_address = length(var.network.ssh_from) > 0
  shutdown_utc   = var.cost_guard.shutdown_utc
  files_account  = module.storage.files_account
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
