output "id" {
  description = "Resource id of the cluster."
  value       = azurerm_kubernetes_cluster.stack.id
}

output "name" {
  description = "Name of the cluster."
  value       = azurerm_kubernetes_cluster.stack.name
}

output "issuer" {
  description = "Who signs its ServiceAccounts' tokens."
  value       = azurerm_kubernetes_cluster.stack.oidc_issuer_url
}
