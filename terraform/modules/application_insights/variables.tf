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

variable "gb_per_day" {
  description = "What comes after so many GB in a day isn't kept."
  type        = number
}
