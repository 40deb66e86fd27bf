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

variable "resource_group_id" {
  description = "What the budget counts."
  type        = string
}

variable "monthly_budget_usd" {
  description = "Per month, in the subscription's currency."
  type        = number
}

variable "alert_emails" {
  description = "Who is told at 50, 80 and 100 %."
  type        = list(string)
}
