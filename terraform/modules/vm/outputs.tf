output "name" {
  description = "Name in Azure."
  value       = azurerm_linux_virtual_machine.vm.name
}
