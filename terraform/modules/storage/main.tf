# Reached by identity alone, deleted blobs come back, old checkpoints go; and the optional NFS share.

locals {
  stack    = replace(var.place.stack, "-", "")
  ip_rules = [for cidr in var.storage.allowed_from : trimsuffix(cidr, "/32")]
}

resource "azurerm_storage_account" "blob" {
  #checkov:skip=CKV_AZURE_33:There are no queues in it.
  #checkov:skip=CKV_AZURE_35:Without an allow-list it is open, and roles alone decide; allowed_from closes it.
  #checkov:skip=CKV_AZURE_59:Laptops read results; roles and the allow-list decide who.
  #checkov:skip=CKV_AZURE_206:Checkpoints and results of a demo; replication is the user's choice and its price.
  #checkov:skip=CKV2_AZURE_1:Microsoft's keys: a vault of one's own is one more thing to lose.
  #checkov:skip=CKV2_AZURE_33:A service endpoint keeps the traffic in Azure, at no price.
  #checkov:skip=CKV2_AZURE_40:Shared keys are off (shared_access_key_enabled).
  #checkov:skip=CKV2_AZURE_41:Without shared keys there is no SAS that could expire.
  name                = "st${local.stack}${var.place.suffix}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  tags                = var.place.tags

  account_kind                     = "StorageV2"
  account_tier                     = "Standard"
  account_replication_type         = var.storage.replication
  access_tier                      = "Hot"
  shared_access_key_enabled        = false
  default_to_oauth_authentication  = true
  allow_nested_items_to_be_public  = false
  cross_tenant_replication_enabled = false
  min_tls_version                  = "TLS1_2"
  https_traffic_only_enabled       = true

  network_rules {
    default_action             = length(var.storage.allowed_from) > 0 ? "Deny" : "Allow"
    bypass                     = ["AzureServices"]
    ip_rules                   = local.ip_rules
    virtual_network_subnet_ids = [var.subnet_id]
  }

  blob_properties {
    versioning_enabled = true

    delete_retention_policy {
      days = var.storage.keep_deleted_days
    }

    container_delete_retention_policy {
      days = var.storage.keep_deleted_days
    }
  }
}

resource "azurerm_storage_container" "blob" {
  #checkov:skip=CKV2_AZURE_21:Request logs of a demo's results cost more than they tell.
  for_each              = toset(concat(["checkpoints", "datasets", "metrics"], var.mlflow ? ["mlflow"] : []))
  name                  = each.key
  storage_account_id    = azurerm_storage_account.blob.id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "blob" {
  storage_account_id = azurerm_storage_account.blob.id

  rule {
    name    = "delete-old-checkpoints"
    enabled = true

    filters {
      blob_types   = ["blockBlob"]
      prefix_match = ["checkpoints/"]
    }

    actions {
      base_blob {
        delete_after_days_since_modification_greater_than = var.storage.checkpoint_days
      }
    }
  }

  rule {
    name    = "delete-old-versions"
    enabled = true

    filters {
      blob_types = ["blockBlob"]
    }

    actions {
      version {
        delete_after_days_since_creation = var.storage.keep_deleted_days
      }
    }
  }
}

# NFS knows no TLS and no keys: what guards the share is that nothing but the subnet reaches its account.
resource "azurerm_storage_account" "nfs" {
  #checkov:skip=CKV_AZURE_3:NFS knows no TLS; the account is closed to all but the subnet.
  #checkov:skip=CKV_AZURE_33:There are no queues in it.
  #checkov:skip=CKV_AZURE_59:Closed to all but the subnet by its network rules.
  #checkov:skip=CKV_AZURE_206:Scratch of a demo; replication is the user's choice and its price.
  #checkov:skip=CKV2_AZURE_1:Microsoft's keys: a vault of one's own is one more thing to lose.
  #checkov:skip=CKV2_AZURE_33:A service endpoint keeps the traffic in Azure, at no price.
  #checkov:skip=CKV2_AZURE_38:Soft delete of shares is SMB's; this one is NFS.
  #checkov:skip=CKV2_AZURE_40:Shared keys are off (shared_access_key_enabled).
  #checkov:skip=CKV2_AZURE_41:Without shared keys there is no SAS that could expire.
  for_each            = toset(var.storage.files_gib == null ? [] : ["files"])
  name                = "nf${local.stack}${var.place.suffix}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  tags                = var.place.tags

  account_kind                    = "FileStorage"
  account_tier                    = "Premium"
  account_replication_type        = var.storage.replication
  shared_access_key_enabled       = false
  allow_nested_items_to_be_public = false
  min_tls_version                 = "TLS1_2"
  https_traffic_only_enabled      = false

  network_rules {
    default_action             = "Deny"
    bypass                     = ["AzureServices"]
    virtual_network_subnet_ids = [var.subnet_id]
  }
}

resource "azurerm_storage_share" "nfs" {
  for_each           = azurerm_storage_account.nfs
  name               = each.key
  storage_account_id = each.value.id
  enabled_protocol   = "NFS"
  quota              = var.storage.files_gib
}
