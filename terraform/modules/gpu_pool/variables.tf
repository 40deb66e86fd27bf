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

variable "pool" {
  description = "One pool of the stack; gpus and local_disk say what its size has."
  type = object({
    name                = string
    vm_size             = string
    spot                = bool
    min_count           = number
    max_count           = number
    max_price_usd_per_h = number
    zones               = list(string)
    os_disk_gib         = number
    driver              = string
    gpus                = number
    local_disk          = bool
  })
}

variable "cluster_id" {
  description = "Resource id of the cluster."
  type        = string
}

variable "kubernetes_version" {
  description = "Minor version of the nodes."
  type        = string
}

variable "subnet_id" {
  description = "Of the nodes."
  type        = string
}
