# Prometheus rules in Azure, and who is told of what they alert on. Without rules there is neither.

locals {
  groups = { for group in var.alert_rules : group.name => group.rules }
  told   = length(var.alert_rules) > 0 && length(var.alert_emails) > 0 ? ["email"] : []
}

resource "azurerm_monitor_action_group" "told" {
  for_each            = toset(local.told)
  name                = "ag-ncdemo-${var.place.stack}"
  location            = "global"
  resource_group_name = var.place.resource_group
  tags                = var.place.tags
  enabled             = true
  short_name          = "ncdemo"

  dynamic "email_receiver" {
    for_each = var.alert_emails
    content {
      name                    = "email-${email_receiver.key}"
      email_address           = email_receiver.value
      use_common_alert_schema = true
    }
  }
}

resource "azurerm_monitor_alert_prometheus_rule_group" "stack" {
  for_each            = local.groups
  name                = "rules-ncdemo-${var.place.stack}-${each.key}"
  location            = var.place.location
  resource_group_name = var.place.resource_group
  tags                = var.place.tags
  rule_group_enabled  = true
  interval            = "PT1M"
  scopes              = [azurerm_monitor_workspace.stack.id]

  dynamic "rule" {
    for_each = each.value
    content {
      enabled     = true
      alert       = rule.value.alert
      record      = rule.value.record
      expression  = rule.value.expression
      for         = rule.value.for_duration
      severity    = rule.value.severity
      labels      = rule.value.labels
      annotations = rule.value.annotations

      dynamic "action" {
        for_each = rule.value.alert == null ? [] : [for one in azurerm_monitor_action_group.told : one.id]
        content {
          action_group_id = action.value
        }
      }

      dynamic "alert_resolution" {
        for_each = rule.value.alert == null ? [] : ["PT10M"]
        content {
          auto_resolved   = true
          time_to_resolve = alert_resolution.value
        }
      }
    }
  }
}
