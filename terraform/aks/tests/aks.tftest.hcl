# Plans with a mocked provider: no login, nothing made.
#   terraform -chdir=terraform/aks init -backend=false && terraform -chdir=terraform/aks test

mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = {
      subscription_id = "00000000-0000-0000-0000-000000000000"
    }
  }
}

variables {
  name = "dev"
  pools = [
    { name = "nc40", namespace = "nc40", max_count = 2 },
    { name = "nc80", namespace = "nc80", vm_size = "Standard_NC80adis_H100_v5", gpus = 2, spot = false },
  ]
}

run "names_and_tags" {
  command = plan

  assert {
    condition     = azurerm_resource_group.stack.name == "rg-ncdemo-dev"
    error_message = "the resource group's name must be made of the stack's"
  }

  assert {
    condition     = azurerm_resource_group.stack.tags == tomap({ project = "ncdemo", stack = "dev", "managed-by" = "terraform" })
    error_message = "the three own tags must be there"
  }

  assert {
    condition     = output.cluster == "aks-ncdemo-dev" && output.target == "aks" && output.results == "az://metrics/jobs"
    error_message = "outputs must be those of the Pulumi stack"
  }

  assert {
    condition     = length(module.gpu_pool) == 2 && length(module.monitoring) == 0 && length(module.application_insights) == 0 && length(module.cost_guard) == 0
    error_message = "a pool each, and nothing that wasn't asked for"
  }
}

run "everything" {
  command = plan

  variables {
    monitoring = { in_cluster = true, azure_monitor = true, application_insights = true }
    storage    = { files_gib = 1024, allowed_from = ["203.0.113.7/32"] }
    cost_guard = { monthly_budget_usd = 100, alert_emails = ["someone@example.com"] }
    aks        = { admins = ["11111111-2222-3333-4444-555555555555"], api_allowed_from = ["203.0.113.0/24"] }
    tags       = { team = "ml" }
  }

  assert {
    condition     = length(module.identity_mlflow) == 1 && length(module.monitoring) == 1 && length(module.application_insights) == 1 && length(module.cost_guard) == 1
    error_message = "MLflow's identity, Azure Monitor, Application Insights and the budget must be there"
  }

  assert {
    condition     = azurerm_resource_group.stack.tags["team"] == "ml"
    error_message = "own tags must be added"
  }
}

run "spot_pool" {
  command = plan

  module {
    source = "../modules/gpu_pool"
  }

  variables {
    place = {
      stack          = "dev"
      location       = "eastus"
      resource_group = "rg-ncdemo-dev"
      suffix         = "abc123"
      tags           = { project = "ncdemo" }
    }
    pool = {
      name  = "nc40", vm_size = "Standard_NC40ads_H100_v5", spot = true, min_count = 0, max_count = 4, max_price_usd_per_h = null
      zones = [], os_disk_gib = 256, driver = "install", gpus = 1, local_disk = true
    }
    cluster_id         = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"
    subnet_id          = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/vnet/subnets/snet-nodes"
    kubernetes_version = "1.35"
  }

  assert {
    condition = alltrue([
      azurerm_kubernetes_cluster_node_pool.jobs.priority == "Spot",
      azurerm_kubernetes_cluster_node_pool.jobs.eviction_policy == "Delete",
      azurerm_kubernetes_cluster_node_pool.jobs.spot_max_price == -1,
      azurerm_kubernetes_cluster_node_pool.jobs.min_count == 0,
      azurerm_kubernetes_cluster_node_pool.jobs.max_count == 4,
      length(azurerm_kubernetes_cluster_node_pool.jobs.upgrade_settings) == 0,
    ])
    error_message = "a spot pool scales to zero, never surges, and is never evicted for its price"
  }

  assert {
    condition = azurerm_kubernetes_cluster_node_pool.jobs.node_taints == tolist([
      "nvidia.com/gpu=present:NoSchedule", "kubernetes.azure.com/scalesetpriority=spot:NoSchedule",
    ])
    error_message = "only jobs may come to a GPU node"
  }

  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.jobs.node_labels["kubernetes.azure.com/scalesetpriority"] == "spot"
    error_message = "the autoscaler needs the spot label declared"
  }
}

run "a_name_that_azure_refuses" {
  command = plan

  variables {
    name = "Dev_1"
  }

  expect_failures = [var.name]
}

run "own_tags_are_taken" {
  command = plan

  variables {
    tags = { stack = "other" }
  }

  expect_failures = [var.tags]
}

run "a_spot_pool_keeps_no_node" {
  command = plan

  variables {
    pools = [{ name = "nc40", spot = true, min_count = 1, max_count = 2 }]
  }

  expect_failures = [var.pools]
}

run "a_budget_needs_someone_to_tell" {
  command = plan

  variables {
    cost_guard = { monthly_budget_usd = 100 }
  }

  expect_failures = [var.cost_guard]
}

run "a_share_has_a_least_size" {
  command = plan

  variables {
    storage = { files_gib = 10 }
  }

  expect_failures = [var.storage]
}
