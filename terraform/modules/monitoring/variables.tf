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

variable "cluster_id" {
  description = "Cluster whose managed Prometheus writes here."
  type        = string
}

variable "alert_rules" {
  description = "Groups of Prometheus rules that are evaluated in the workspace."
  type = list(object({
    name = string
    rules = list(object({
      alert        = optional(string)
      record       = optional(string)
      expression   = string
      for_duration = optional(string)
      severity     = optional(number)
      labels       = optional(map(string))
      annotations  = optional(map(string))
    }))
  }))
  default = []
}

variable "alert_emails" {
  description = "Who is told of an alert."
  type        = list(string)
  default     = []
}
