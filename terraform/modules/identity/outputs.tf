output "id" {
  description = "Resource id."
  value       = azurerm_user_assigned_identity.this.id
}

output "client_id" {
  description = "What a workload names to act as it."
  value       = azurerm_user_assigned_identity.this.client_id
}

output "principal_id" {
  description = "What roles are given to."
  value       = azurerm_user_assigned_identity.this.principal_id
}
