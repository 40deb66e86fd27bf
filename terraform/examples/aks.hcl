# Everything that the AKS root can do, with defaults that are a good start: what `ncdemo terraform vars aks-full` writes.
# Put your own address for budget alerts before:
#   terraform -chdir=terraform/aks plan -var-file=../examples/aks.hcl

name = "aks-full"

location = "eastus"

tags = {}

pools = [
  {
    name                = "nc40spot"
    vm_size             = "Standard_NC40ads_H100_v5"
    spot                = true
    min_count           = 0
    max_count           = 4
    max_price_usd_per_h = null
    zones               = []
    namespace           = "nc40"
    os_disk_gib         = 256
    driver              = "install"
    gpus                = 1
    local_disk          = true
  },
  {
    name                = "nc40"
    vm_size             = "Standard_NC40ads_H100_v5"
    spot                = false
    min_count           = 0
    max_count           = 1
    max_price_usd_per_h = null
    zones               = []
    namespace           = "nc40"
    os_disk_gib         = 256
    driver              = "install"
    gpus                = 1
    local_disk          = true
  },
  {
    name                = "nc80spot"
    vm_size             = "Standard_NC80adis_H100_v5"
    spot                = true
    min_count           = 0
    max_count           = 2
    max_price_usd_per_h = null
    zones               = []
    namespace           = "nc80"
    os_disk_gib         = 256
    driver              = "install"
    gpus                = 2
    local_disk          = true
  },
  {
    name                = "nc80"
    vm_size             = "Standard_NC80adis_H100_v5"
    spot                = false
    min_count           = 0
    max_count           = 2
    max_price_usd_per_h = null
    zones               = []
    namespace           = "nc80"
    os_disk_gib         = 256
    driver              = "install"
    gpus                = 2
    local_disk          = true
  },
]

aks = {
  kubernetes_version = "1.35"
  tier               = "Standard"
  system = {
    vm_size = "Standard_D4s_v5"
    count   = 2
  }
  admins           = []
  api_allowed_from = []
}

network = {
  address_space = "10.64.0.0/16"
}

cost_guard = {
  monthly_budget_usd = 10000
  alert_emails       = ["ml-platform@example.com"]
  expires            = null
}

storage = {
  replication       = "LRS"
  keep_deleted_days = 7
  checkpoint_days   = 30
  allowed_from      = []
  files_gib         = 1024
}

monitoring = {
  in_cluster                      = true
  azure_monitor                   = true
  application_insights            = true
  application_insights_gb_per_day = 1
}
