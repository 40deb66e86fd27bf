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

variable "address_space" {
  description = "Of the virtual network, IPv4, at least a /20; its upper half is for nodes or VMs."
  type        = string
}

variable "ssh_from" {
  description = "Networks that may log in to VMs by SSH (empty: none)."
  type        = list(string)
}

variable "bastion" {
  description = "SSH to VMs through the portal: none, developer (free, shared) or basic (the stack's own, paid by the hour)."
  type        = string
}

variable "vms" {
  description = "Whether VMs live in it, which SSH and Bastion are for."
  type        = bool
}
