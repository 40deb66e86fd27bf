variable "name" {
  description = "Of the stack, part of every Azure name. Changing it replaces everything."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,14}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 16 lower-case letters, digits and hyphens, beginning with a letter, e.g. aks-dev."
  }
}

variable "suffix" {
  description = "Six characters for names that must be unique in all of Azure (null: made of subscription and name)."
  type        = string
  default     = null

  validation {
    condition     = var.suffix == null ? true : can(regex("^[a-z0-9]{6}$", var.suffix))
    error_message = "suffix must be six lower-case letters and digits, e.g. a1b2c3; or leave it out."
  }
}

variable "location" {
  description = "Azure region, as `az account list-locations` names it."
  type        = string
  default     = "eastus"

  validation {
    condition     = can(regex("^[a-z]{2,}[a-z0-9]*$", var.location))
    error_message = "location must be an Azure region without spaces, e.g. eastus."
  }
}

variable "tags" {
  description = "On every Azure resource, beside project, stack, managed-by and expires."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setintersection(keys(var.tags), ["project", "stack", "managed-by", "expires"])) == 0
    error_message = "tags project, stack, managed-by and expires are set by the root itself; remove them."
  }
}

variable "storage" {
  description = "Copies, days that deleted blobs and untouched checkpoints are kept, networks outside Azure that reach it (empty: any, with a role), GiB of the NFS share (null: none)."
  type = object({
    replication       = optional(string, "LRS")
    keep_deleted_days = optional(number, 7)
    checkpoint_days   = optional(number, 30)
    allowed_from      = optional(list(string), [])
    files_gib         = optional(number)
  })
  default = {}

  validation {
    condition     = contains(["LRS", "ZRS"], var.storage.replication)
    error_message = "storage.replication must be LRS or ZRS."
  }

  validation {
    condition     = var.storage.keep_deleted_days >= 1 && var.storage.keep_deleted_days <= 365 && var.storage.checkpoint_days >= 1
    error_message = "storage.keep_deleted_days must be 1 to 365, storage.checkpoint_days 1 or more."
  }

  validation {
    condition     = alltrue([for cidr in var.storage.allowed_from : can(cidrhost(cidr, 0))])
    error_message = "storage.allowed_from must hold networks, e.g. 203.0.113.7/32."
  }

  validation {
    condition     = var.storage.files_gib == null ? true : var.storage.files_gib >= 100
    error_message = "storage.files_gib must be 100 or more, Azure's least for a premium share; or null."
  }
}

variable "pools" {
  description = "Node pools for jobs: 0 to max_count nodes of one size. gpus and local_disk say what the size has; `ncdemo terraform vars` knows."
  type = list(object({
    name                = string
    vm_size             = optional(string, "Standard_NC40ads_H100_v5")
    spot                = optional(bool, true)
    min_count           = optional(number, 0)
    max_count           = optional(number, 1)
    max_price_usd_per_h = optional(number)
    zones               = optional(list(string), [])
    namespace           = optional(string, "ncdemo")
    os_disk_gib         = optional(number, 256)
    driver              = optional(string, "install")
    gpus                = optional(number, 1)
    local_disk          = optional(bool, true)
  }))

  validation {
    condition     = length(var.pools) > 0 && length(distinct(var.pools[*].name)) == length(var.pools)
    error_message = "pools must hold at least one pool, and no name twice."
  }

  validation {
    condition     = alltrue([for pool in var.pools : can(regex("^[a-z][a-z0-9]{0,10}[a-z0-9]$", pool.name)) && pool.name != "system"])
    error_message = "pools: a name must be 2 to 12 lower-case letters and digits, beginning with a letter, and not system."
  }

  validation {
    condition     = alltrue([for pool in var.pools : pool.spot || pool.max_price_usd_per_h == null])
    error_message = "pools: max_price_usd_per_h has an effect on spot alone; remove it, or set spot = true."
  }

  validation {
    condition     = alltrue([for pool in var.pools : pool.min_count >= 0 && pool.min_count <= pool.max_count && (!pool.spot || pool.min_count == 0)])
    error_message = "pools: min_count must be 0 to max_count, and 0 on a spot pool, which then costs nothing while idle."
  }

  validation {
    condition     = alltrue([for pool in var.pools : contains(["install", "none"], pool.driver)])
    error_message = "pools: driver must be install or none."
  }
}

variable "network" {
  description = "Address space of the virtual network, IPv4, at least a /20."
  type = object({
    address_space = optional(string, "10.64.0.0/16")
  })
  default = {}

  validation {
    condition     = can(cidrsubnet(var.network.address_space, 1, 1)) && tonumber(split("/", var.network.address_space)[1]) <= 20
    error_message = "network.address_space must be an IPv4 network of at least a /20, e.g. 10.64.0.0/16."
  }
}

variable "aks" {
  description = "Minor version, tier, system pool, Entra object ids of admins (then there are no local accounts), networks that reach the API server (empty: all, with credentials)."
  type = object({
    kubernetes_version = optional(string, "1.35")
    tier               = optional(string, "Free")
    system = optional(object({
      vm_size = optional(string, "Standard_D4s_v5")
      count   = optional(number, 1)
    }), {})
    admins           = optional(list(string), [])
    api_allowed_from = optional(list(string), [])
  })
  default = {}

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.aks.kubernetes_version))
    error_message = "aks.kubernetes_version must be a minor version, e.g. 1.35; AKS applies its patches."
  }

  validation {
    condition     = contains(["Free", "Standard"], var.aks.tier)
    error_message = "aks.tier must be Free or Standard."
  }

  validation {
    condition     = var.aks.system.count >= 1 && var.aks.system.count <= 10
    error_message = "aks.system.count must be 1 to 10; production wants 2 or more."
  }
}

variable "monitoring" {
  description = "in_cluster: identity and container for an MLflow server in the cluster. azure_monitor: a workspace fed by AKS's managed Prometheus. application_insights: a resource that jobs send their figures to, as their identity alone; GB a day that it keeps."
  type = object({
    in_cluster                      = optional(bool, false)
    azure_monitor                   = optional(bool, false)
    application_insights            = optional(bool, false)
    application_insights_gb_per_day = optional(number, 1)
  })
  default = {}

  validation {
    condition     = var.monitoring.application_insights_gb_per_day >= 0.1 && var.monitoring.application_insights_gb_per_day <= 1000
    error_message = "monitoring.application_insights_gb_per_day must be 0.1 to 1000."
  }
}

variable "alert_rules" {
  description = "Groups of Prometheus rules for monitoring.azure_monitor, as `ncdemo terraform vars` writes them with azure_monitor_alerts; cost_guard.alert_emails are told. What rules query is billed."
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

  validation {
    condition     = length(var.alert_rules) == 0 || var.monitoring.azure_monitor
    error_message = "alert_rules are over what monitoring.azure_monitor holds; set that to true too."
  }
}

variable "cost_guard" {
  description = "Budget of the resource group (null: none) and who is told. It warns; it stops nothing. Until when the stack is wanted, a tag (null: no end)."
  type = object({
    monthly_budget_usd = optional(number)
    alert_emails       = optional(list(string), [])
    expires            = optional(string)
  })
  default = {}

  validation {
    condition     = var.cost_guard.monthly_budget_usd == null || length(var.cost_guard.alert_emails) > 0
    error_message = "cost_guard.monthly_budget_usd needs someone to tell; add alert_emails."
  }

  validation {
    condition     = var.cost_guard.expires == null ? true : can(formatdate("YYYY", var.cost_guard.expires))
    error_message = "cost_guard.expires must be a time in UTC, e.g. 2027-01-31T18:00:00Z."
  }
}
