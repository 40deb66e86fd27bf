# Plans with a mocked provider: no login, nothing made.
#   terraform -chdir=terraform/vm init -backend=false && terraform -chdir=terraform/vm test

mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = {
      subscription_id = "00000000-0000-0000-0000-000000000000"
    }
  }
}

variables {
  name  = "dev"
  pools = [{ name = "h100", max_count = 2 }]
}

run "names" {
  command = plan

  assert {
    condition     = output.vms == ["vm-ncdemo-dev-h100-0", "vm-ncdemo-dev-h100-1"]
    error_message = "VMs are named by stack, pool and index"
  }

  assert {
    condition     = output.target == "vm" && output.results == "az://metrics/jobs"
    error_message = "outputs must be those of the Pulumi stack"
  }
}

run "everything" {
  command = plan

  variables {
    network    = { bastion = "basic", ssh_from = ["203.0.113.7/32"] }
    storage    = { files_gib = 256 }
    cost_guard = { monthly_budget_usd = 100, alert_emails = ["someone@example.com"], shutdown_utc = "19:00" }
    vm         = { setup = "echo \"hello\"" }
  }

  assert {
    condition     = length(module.cost_guard) == 1
    error_message = "the budget must be there"
  }
}

run "spot_vm" {
  command = plan

  module {
    source = "../modules/vm"
  }

  variables {
    place = {
      stack          = "dev"
      location       = "eastus"
      resource_group = "rg-ncdemo-dev"
      suffix         = "abc123"
      tags           = { project = "ncdemo" }
    }
    pool           = { name = "h100", vm_size = "Standard_NC40ads_H100_v5", spot = true, max_price_usd_per_h = null, zones = ["1", "2"], os_disk_gib = 256 }
    index          = 1
    vm             = { image = "2204", admin_username = "ncdemo", ssh_public_keys = [], idle_minutes = 15, setup = "" }
    subnet_id      = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/vnet/subnets/snet-nodes"
    identity       = { id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id", client_id = "11111111-2222-3333-4444-555555555555", principal_id = "11111111-2222-3333-4444-555555555555" }
    public_address = false
    shutdown_utc   = "19:30"
    files_account  = "nfdevabc123"
  }

  assert {
    condition = alltrue([
      azurerm_linux_virtual_machine.vm.priority == "Spot",
      azurerm_linux_virtual_machine.vm.eviction_policy == "Deallocate",
      azurerm_linux_virtual_machine.vm.max_bid_price == -1,
      azurerm_linux_virtual_machine.vm.disable_password_authentication,
      azurerm_linux_virtual_machine.vm.zone == "2",
      length(azurerm_public_ip.vm) == 0,
    ])
    error_message = "a spot VM keeps its disk, has no address and no password"
  }

  assert {
    condition     = azurerm_dev_test_global_vm_shutdown_schedule.vm["19:30"].daily_recurrence_time == "1930"
    error_message = "it shuts down every day"
  }

  assert {
    condition = alltrue([
      startswith(base64decode(azurerm_linux_virtual_machine.vm.custom_data), "#cloud-config\nwrite_files:\n"),
      strcontains(base64decode(azurerm_linux_virtual_machine.vm.custom_data), "    NCDEMO_FILES=nfdevabc123.file.core.windows.net:/nfdevabc123/files\n"),
      length(base64decode(azurerm_linux_virtual_machine.vm.custom_data)) <= 65535,
    ])
    error_message = "cloud-init must name the share, and fit"
  }
}

run "the_internet_may_not_log_in" {
  command = plan

  variables {
    network = { ssh_from = ["0.0.0.0/0"] }
  }

  expect_failures = [var.network]
}

run "shutdown_is_a_time" {
  command = plan

  variables {
    cost_guard = { shutdown_utc = "25:00" }
  }

  expect_failures = [var.cost_guard]
}

run "pools_have_names_of_their_own" {
  command = plan

  variables {
    pools = [{ name = "h100" }, { name = "h100" }]
  }

  expect_failures = [var.pools]
}

run "application_insights" {
  command = plan

  module {
    source = "../modules/application_insights"
  }

  variables {
    place = {
      stack          = "dev"
      location       = "eastus"
      resource_group = "rg-ncdemo-dev"
      suffix         = "abc123"
      tags           = { project = "ncdemo" }
    }
    gb_per_day = 2
  }

  assert {
    condition = alltrue([
      !azurerm_application_insights.stack.local_authentication_enabled,
      !azurerm_log_analytics_workspace.stack.local_authentication_enabled,
      azurerm_log_analytics_workspace.stack.daily_quota_gb == 2,
    ])
    error_message = "identities alone write there, up to the cap"
  }
}

run "a_cap_is_a_number_of_gb" {
  command = plan

  variables {
    monitoring = { application_insights = true, application_insights_gb_per_day = 0 }
  }

  expect_failures = [var.monitoring]
}
