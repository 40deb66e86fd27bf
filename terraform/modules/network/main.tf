# One subnet for nodes or VMs, closed to the internet; Bastion or an SSH allow-list if asked for.

locals {
  nodes       = "snet-nodes"
  own_bastion = var.vms && var.bastion == "basic"
  # The lowest /26 is for a Bastion of the stack's own.
  prefixes = merge(
    { (local.nodes) = cidrsubnet(var.address_space, 1, 1) },
    { for name in ["AzureBastionSubnet"] : name => cidrsubnet(var.address_space, 26 - tonumber(split("/", var.address_space)[1]), 0) if local.own_bastion },
  )
}

resource "azurerm_network_security_group" "nodes" {
  name                = "nsg-ncdemo-${var.place.stack}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  tags                = var.place.tags

  dynamic "security_rule" {
    for_each = var.vms && length(var.ssh_from) > 0 ? ["ssh-from-allow-list"] : []
    content {
      name                       = security_rule.value
      priority                   = 100
      direction                  = "Inbound"
      access                     = "Allow"
      protocol                   = "Tcp"
      source_address_prefixes    = var.ssh_from
      source_port_range          = "*"
      destination_address_prefix = "*"
      destination_port_range     = "22"
    }
  }
}

resource "azurerm_virtual_network" "stack" {
  #checkov:skip=CKV_AZURE_183:Azure's own DNS is what the stack's names and private storage addresses are in.
  name                = "vnet-ncdemo-${var.place.stack}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  address_space       = [var.address_space]
  tags                = var.place.tags

  # As an attribute, not as blocks: azurerm 4 knows service_endpoints, azurerm 5 service_endpoint, and each drops the key of an object
  # that it doesn't know. Of the rest, every key must be there. Replace it by blocks when azurerm 4 is given up.
  subnet = [
    for name, prefix in local.prefixes : {
      id                                            = null
      name                                          = name
      address_prefixes                              = [prefix]
      security_group                                = name == local.nodes ? azurerm_network_security_group.nodes.id : null
      service_endpoints                             = name == local.nodes ? ["Microsoft.Storage"] : []
      service_endpoint                              = [for service in ["Microsoft.Storage"] : { service = service, network_identifier = null } if name == local.nodes]
      service_endpoint_policy_ids                   = []
      private_endpoint_network_policies             = "Disabled"
      private_link_service_network_policies_enabled = true
      # VMs without an address of their own reach the registry and the hub through Azure's default address.
      default_outbound_access_enabled = name == local.nodes ? var.vms : null
      route_table_id                  = null
      delegation                      = []
    }
  ]
}

resource "azurerm_public_ip" "bastion" {
  for_each            = toset(local.own_bastion ? ["bastion"] : [])
  name                = "pip-ncdemo-${var.place.stack}-${each.key}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  sku                 = "Standard"
  allocation_method   = "Static"
  tags                = var.place.tags
}

resource "azurerm_bastion_host" "stack" {
  for_each            = toset(var.vms && var.bastion != "none" ? [var.bastion] : [])
  name                = "bas-ncdemo-${var.place.stack}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  sku                 = title(each.key)
  virtual_network_id  = each.key == "developer" ? azurerm_virtual_network.stack.id : null
  tags                = var.place.tags

  copy_paste_enabled        = true
  file_copy_enabled         = false
  ip_connect_enabled        = false
  kerberos_enabled          = false
  session_recording_enabled = false
  shareable_link_enabled    = false
  tunneling_enabled         = false

  dynamic "ip_configuration" {
    for_each = azurerm_public_ip.bastion
    content {
      name                 = "bastion"
      subnet_id            = "${azurerm_virtual_network.stack.id}/subnets/AzureBastionSubnet"
      public_ip_address_id = ip_configuration.value.id
    }
  }
}
