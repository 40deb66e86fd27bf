output "id" {
  description = "Resource id of the component: what a role is given at."
  value       = azurerm_application_insights.stack.id
}

output "connection_string" {
  description = "Says jobs where to send."
  value       = azurerm_application_insights.stack.connection_string
  sensitive   = true
}
