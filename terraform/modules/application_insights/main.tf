# Application Insights for the runs' figures, and the workspace that keeps them. Only identities may write there.

resource "azurerm_log_analytics_workspace" "stack" {
  name                            = "log-ncdemo-${var.place.stack}"
  location                        = var.place.location
  resource_group_name             = var.place.resource_group
  tags                            = var.place.tags
  sku                             = "PerGB2018"
  retention_in_days               = 90
  daily_quota_gb                  = var.gb_per_day
  local_authentication_enabled    = false
  allow_resource_only_permissions = true
}

resource "azurerm_application_insights" "stack" {
  name                         = "appi-ncdemo-${var.place.stack}"
  location                     = var.place.location
  resource_group_name          = var.place.resource_group
  tags                         = var.place.tags
  application_type             = "other"
  workspace_id                 = azurerm_log_analytics_workspace.stack.id
  local_authentication_enabled = false
  internet_ingestion_enabled   = true
  internet_query_enabled       = true
}
