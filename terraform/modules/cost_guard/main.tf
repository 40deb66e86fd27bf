# A budget warns; it stops nothing. VMs also shut themselves down (modules/vm); jobs have deadlines.

resource "azurerm_consumption_budget_resource_group" "stack" {
  name              = "budget-ncdemo-${var.place.stack}"
  resource_group_id = var.resource_group_id
  amount            = var.monthly_budget_usd
  time_grain        = "Monthly"

  time_period {
    start_date = formatdate("YYYY-MM-01'T'00:00:00'Z'", plantimestamp())
  }

  dynamic "notification" {
    for_each = [50, 80, 100]
    content {
      enabled        = true
      operator       = "GreaterThanOrEqualTo"
      threshold      = notification.value
      threshold_type = "Actual"
      contact_emails = var.alert_emails
    }
  }

  lifecycle {
    # It begins in the month of its making, and stays.
    ignore_changes = [time_period]
  }
}
