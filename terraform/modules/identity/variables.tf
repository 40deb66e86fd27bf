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

variable "purpose" {
  description = "Ends the identity's name: jobs, mlflow, cluster."
  type        = string
}

variable "grants" {
  description = "What it may do: part of the program -> role and scope."
  type        = map(object({ role = string, scope = string }))
}

variable "trusts" {
  description = "Kubernetes ServiceAccounts that may act as it: namespace -> ServiceAccount and the cluster's issuer."
  type        = map(object({ service_account = string, issuer = string }))
  default     = {}
}
