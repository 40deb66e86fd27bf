variable "place" {
  description = "Where the resources are and whose: the stack's name in Azure's names, region, resource group, six characters for names unique in all of Azure, tags."
  type = object({
    stack          = string
    location       = string
    resource_group = string
    suffix         = string
    tags           = map(string)
  })
}

variable "aks" {
  description = "Minor version, tier (Free, Standard), system pool, object ids of admins, networks that reach the API server (empty: all, with credentials)."
  type = object({
    kubernetes_version = string
    tier               = string
    system             = object({ vm_size = string, count = number })
    admins             = list(string)
    api_allowed_from   = list(string)
  })
}

variable "identity_id" {
  description = "The control plane acts as it; it has its role on the subnet before the cluster is made."
  type        = string
}

variable "subnet_id" {
  description = "Of the nodes."
  type        = string
}

variable "registry_id" {
  description = "What nodes pull from."
  type        = string
}

variable "azure_monitor" {
  description = "Whether managed Prometheus runs."
  type        = bool
}
