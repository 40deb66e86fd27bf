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
  description = "The pool that the VM is of."
  type = object({
    name                = string
    vm_size             = string
    spot                = bool
    max_price_usd_per_h = number
    zones               = list(string)
    os_disk_gib         = number
  })
}

variable "index" {
  description = "Of the VM in its pool, from 0."
  type        = number
}

variable "vm" {
  description = "Ubuntu version of Microsoft's HPC image, login name, public keys (empty: one that nobody holds), minutes until an idle VM goes, shell commands of the first boot."
  type = object({
    image           = string
    admin_username  = string
    ssh_public_keys = list(string)
    idle_minutes    = number
    setup           = string
  })
}

variable "subnet_id" {
  description = "Of the VMs."
  type        = string
}

variable "identity" {
  description = "The jobs' identity, which may deallocate the VM."
  type        = object({ id = string, client_id = string, principal_id = string })
}

variable "public_address" {
  description = "Whether it has one: only with an allow-list on the subnet."
  type        = bool
}

variable "shutdown_utc" {
  description = "Daily deallocation, e.g. 19:00 (null: never)."
  type        = string
}

variable "files_account" {
  description = "Storage account of the NFS share (null: none)."
  type        = string
}
