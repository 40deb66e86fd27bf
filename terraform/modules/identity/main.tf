# A user-assigned identity, who may act as it, and what it may do: no key or password anywhere, the least role at the smallest scope.

locals {
  name = "id-ncdemo-${var.place.stack}-${var.purpose}"
}

resource "azurerm_user_assigned_identity" "this" {
  name                = local.name
  location            = var.place.location
  resource_group_name = var.place.resource_group
  tags                = var.place.tags
}

resource "azurerm_role_assignment" "this" {
  for_each = var.grants
  # The same UUID on every run, and the same as Pulumi's.
  name                 = uuidv5("url", "ncdemo:${local.name}:${each.key}:${each.value.role}")
  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_federated_identity_credential" "this" {
  for_each                  = var.trusts
  name                      = "${each.key}-${each.value.service_account}"
  user_assigned_identity_id = azurerm_user_assigned_identity.this.id
  issuer                    = each.value.issuer
  subject                   = "system:serviceaccount:${each.key}:${each.value.service_account}"
  audience                  = ["api://AzureADTokenExchange"]
}
