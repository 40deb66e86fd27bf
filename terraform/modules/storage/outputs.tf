output "account" {
  description = "Name of the Blob account."
  value       = azurerm_storage_account.blob.name
}

output "containers" {
  description = "Container -> resource id, the scope of roles."
  value       = { for name, one in azurerm_storage_container.blob : name => one.id }
}

output "files_account" {
  description = "Name of the NFS share's account; null where there is none."
  value       = one([for share in azurerm_storage_share.nfs : azurerm_storage_account.nfs[share.name].name])
}
