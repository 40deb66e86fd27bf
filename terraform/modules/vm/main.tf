# One VM for jobs: Microsoft's HPC image, spot if asked for, no address and no password, gone from the bill when idle.

locals {
  host = "${var.pool.name}-${var.index}"
  name = "vm-ncdemo-${var.place.stack}-${local.host}"
  # Azure wants a key where there is no password. This one's 32 bytes are the SHA-256 of "ncdemo: nobody holds this key".
  nobody = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHWxtLXHqUbFl9O9V2e7oYemzMLOoSNmHCymAdpV4MfQ"
}

resource "azurerm_public_ip" "vm" {
  for_each            = toset(var.public_address ? ["address"] : [])
  name                = "pip-${local.name}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  sku                 = "Standard"
  allocation_method   = "Static"
  tags                = var.place.tags
}

resource "azurerm_network_interface" "vm" {
  #checkov:skip=CKV2_AZURE_39:An address only with an allow-list for SSH; boot diagnostics tell why a VM doesn't start.
  #checkov:skip=CKV_AZURE_119:Only with an allow-list for SSH, which the subnet's security group holds.
  name                           = "nic-${local.name}"
  location                       = var.place.location
  resource_group_name            = var.place.resource_group
  accelerated_networking_enabled = true
  tags                           = var.place.tags

  ip_configuration {
    name                          = "main"
    subnet_id                     = var.subnet_id
    private_ip_address_allocation = "Dynamic"
    public_ip_address_id          = one([for address in azurerm_public_ip.vm : address.id])
  }
}

resource "azurerm_linux_virtual_machine" "vm" {
  #checkov:skip=CKV_AZURE_50:Jobs are started by run commands, which the VM agent runs as an extension.
  #checkov:skip=CKV_AZURE_93:Microsoft's keys: a disk encryption set is one more thing to lose.
  #checkov:skip=CKV_AZURE_178:Its only key is one that somebody named, or that nobody holds.
  #checkov:skip=CKV_AZURE_179:The agent is on (provision_vm_agent).
  name                = local.name
  location            = var.place.location
  resource_group_name = var.place.resource_group
  size                = var.pool.vm_size
  zone                = length(var.pool.zones) > 0 ? var.pool.zones[var.index % length(var.pool.zones)] : null
  tags                = var.place.tags

  computer_name                   = local.host
  admin_username                  = var.vm.admin_username
  disable_password_authentication = true
  provision_vm_agent              = true
  custom_data                     = base64encode(local.cloud_init)
  network_interface_ids           = [azurerm_network_interface.vm.id]

  priority        = var.pool.spot ? "Spot" : "Regular"
  eviction_policy = var.pool.spot ? "Deallocate" : null
  max_bid_price   = var.pool.spot ? coalesce(var.pool.max_price_usd_per_h, -1) : null

  dynamic "admin_ssh_key" {
    for_each = length(var.vm.ssh_public_keys) > 0 ? var.vm.ssh_public_keys : [local.nobody]
    content {
      username   = var.vm.admin_username
      public_key = admin_ssh_key.value
    }
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [var.identity.id]
  }

  source_image_reference {
    publisher = "microsoft-dsvm"
    offer     = "ubuntu-hpc"
    sku       = var.vm.image
    version   = "latest"
  }

  # A managed disk: a VM on a local OS disk can't be deallocated.
  os_disk {
    name                 = "osdisk-${local.name}"
    caching              = "ReadWrite"
    disk_size_gb         = var.pool.os_disk_gib
    storage_account_type = "StandardSSD_LRS"
  }

  boot_diagnostics {}
}

resource "azurerm_dev_test_global_vm_shutdown_schedule" "vm" {
  for_each              = toset(var.shutdown_utc == null ? [] : [var.shutdown_utc])
  virtual_machine_id    = azurerm_linux_virtual_machine.vm.id
  location              = var.place.location
  enabled               = true
  daily_recurrence_time = replace(each.key, ":", "")
  timezone              = "UTC"
  tags                  = var.place.tags

  notification_settings {
    enabled = false
  }
}

# An idle VM deallocates itself.
resource "azurerm_role_assignment" "deallocate" {
  name                 = uuidv5("url", "ncdemo:id-ncdemo-${var.place.stack}-jobs:deallocate-${local.host}:Desktop Virtualization Power On Off Contributor")
  scope                = azurerm_linux_virtual_machine.vm.id
  role_definition_name = "Desktop Virtualization Power On Off Contributor"
  principal_id         = var.identity.principal_id
  principal_type       = "ServicePrincipal"
}
