# Two VMs with two H100s each, a shared NFS folder and a budget: what `ncdemo terraform vars vm-full` writes.
# Put your own address for budget alerts before:
#   terraform -chdir=terraform/vm plan -var-file=../examples/vm.hcl

name = "vm-full"

location = "eastus"

tags = {}

pools = [
  {
    name                = "h100x2"
    vm_size             = "Standard_NC80adis_H100_v5"
    spot                = false
    max_count           = 2
    max_price_usd_per_h = null
    zones               = []
    os_disk_gib         = 256
  },
]

vm = {
  image           = "2204"
  admin_username  = "ncdemo"
  ssh_public_keys = []
  idle_minutes    = 15
  setup           = ""
}

network = {
  address_space = "10.64.0.0/16"
  ssh_from      = []
  bastion       = "developer"
}

cost_guard = {
  monthly_budget_usd = 5000
  alert_emails       = ["ml-platform@example.com"]
  shutdown_utc       = "19:00"
  expires            = null
}

storage = {
  replication       = "LRS"
  keep_deleted_days = 7
  checkpoint_days   = 30
  allowed_from      = []
  files_gib         = 256
}

monitoring = {
  application_insights            = true
  application_insights_gb_per_day = 1
}
