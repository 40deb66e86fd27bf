# Pulled from by identity, no admin user.

resource "azurerm_container_registry" "stack" {
  #checkov:skip=CKV_AZURE_139:A private endpoint needs the Premium SKU; pulling needs a role.
  #checkov:skip=CKV_AZURE_163:Scanning is Defender's, a plan of the subscription.
  #checkov:skip=CKV_AZURE_164:Signed images need the Premium SKU; jobs can name digests.
  #checkov:skip=CKV_AZURE_165:One region.
  #checkov:skip=CKV_AZURE_166:Quarantine needs the Premium SKU.
  #checkov:skip=CKV_AZURE_167:Untagged manifests' retention needs the Premium SKU.
  #checkov:skip=CKV_AZURE_233:Zones need the Premium SKU.
  #checkov:skip=CKV_AZURE_237:Dedicated data endpoints need the Premium SKU.
  name                = "cr${replace(var.place.stack, "-", "")}${var.place.suffix}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  tags                = var.place.tags

  sku                           = "Basic"
  admin_enabled                 = false
  anonymous_pull_enabled        = false
  network_rule_bypass_option    = "AzureServices"
  public_network_access_enabled = true
  zone_redundancy_enabled       = false
}
