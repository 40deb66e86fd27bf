output "workspace_id" {
  description = "Resource id of the Azure Monitor workspace."
  value       = azurerm_monitor_workspace.stack.id
}
