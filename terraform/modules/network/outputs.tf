output "subnet_id" {
  description = "Of the nodes or VMs."
  value       = "${azurerm_virtual_network.stack.id}/subnets/${local.nodes}"
}
