output "id" {
  description = "Resource id of the pool."
  value       = azurerm_kubernetes_cluster_node_pool.jobs.id
}
