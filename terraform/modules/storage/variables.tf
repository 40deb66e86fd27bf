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

variable "subnet_id" {
  description = "Nodes or VMs: always let in."
  type        = string
}

variable "storage" {
  description = "Copies (LRS, ZRS), days that deleted blobs and untouched checkpoints are kept, networks let in (empty: any), GiB of the NFS share (null: none)."
  type = object({
    replication       = string
    keep_deleted_days = number
    checkpoint_days   = number
    allowed_from      = list(string)
    files_gib         = number
  })
}

variable "mlflow" {
  description = "Whether an MLflow server keeps its artifacts here."
  type        = bool
}
