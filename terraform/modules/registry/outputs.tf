output "id" {
  description = "Scope of the pull role."
  value       = azurerm_container_registry.stack.id
}

output "server" {
  description = "Login server."
  value       = azurerm_container_registry.stack.login_server
}
