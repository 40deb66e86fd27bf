output "resource_group" {
  description = "Everything is in it."
  value       = azurerm_resource_group.stack.name
}

output "storage_account" {
  description = "Blob account of checkpoints, data sets and results."
  value       = module.storage.account
}

output "registry" {
  description = "Login server of the container registry."
  value       = module.registry.server
}

output "results" {
  description = "Where jobs leave their runs."
  value       = "az://metrics/jobs"
}

output "target" {
  description = "Where jobs run."
  value       = "aks"
}

output "cluster" {
  description = "Name of the cluster."
  value       = module.aks.name
}

output "connect" {
  description = "Command that fetches credentials."
  value       = "az aks get-credentials -g ${azurerm_resource_group.stack.name} -n ${module.aks.name}"
}

output "namespaces" {
  description = "Manifests of the jobs' namespaces: terraform output -raw namespaces | kubectl apply -f -"
  value       = join("---\n", [for one in local.manifests : yamlencode(one)])
}

output "connection_string" {
  description = "Of the Application Insights resource (null: there is none): terraform output -raw connection_string"
  value       = one([for one in module.application_insights : one.connection_string])
  sensitive   = true
}
