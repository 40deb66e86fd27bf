# Azure Monitor: workspace, collection endpoint and rule, and the rule's tie to the cluster.

resource "azurerm_monitor_workspace" "stack" {
  name                = "amw-ncdemo-${var.place.stack}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  tags                = var.place.tags
}

resource "azurerm_monitor_data_collection_endpoint" "stack" {
  #checkov:skip=CKV_AZURE_223:Nodes reach it over Azure's network; a private link scope is the subscription's choice.
  name                          = "dce-ncdemo-${var.place.stack}"
  location                      = var.place.location
  resource_group_name           = var.place.resource_group
  tags                          = var.place.tags
  kind                          = "Linux"
  public_network_access_enabled = true
}

resource "azurerm_monitor_data_collection_rule" "stack" {
  name                        = "dcr-ncdemo-${var.place.stack}"
  location                    = var.place.location
  resource_group_name         = var.place.resource_group
  tags                        = var.place.tags
  kind                        = "Linux"
  data_collection_endpoint_id = azurerm_monitor_data_collection_endpoint.stack.id

  data_sources {
    prometheus_forwarder {
      name    = "prometheus"
      streams = ["Microsoft-PrometheusMetrics"]
    }
  }

  destinations {
    monitor_account {
      name               = "workspace"
      monitor_account_id = azurerm_monitor_workspace.stack.id
    }
  }

  data_flow {
    streams      = ["Microsoft-PrometheusMetrics"]
    destinations = ["workspace"]
  }
}

resource "azurerm_monitor_data_collection_rule_association" "stack" {
  name                    = "ContainerInsightsMetricsExtension"
  target_resource_id      = var.cluster_id
  data_collection_rule_id = azurerm_monitor_data_collection_rule.stack.id
}
