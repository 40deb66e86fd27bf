# Namespaces of the jobs, as text for kubectl: a provider for a cluster that isn't there yet can't plan.
# docs/terraform.md says how they get there; ncdemo/infra/job_namespace.py makes the same.

locals {
  labels = { "app.kubernetes.io/part-of" = "ncdemo" }

  # Who may scrape jobs that serve their metrics: the cluster's own Prometheus, and the add-on of Azure's managed one.
  scrapers = concat(
    var.monitoring.in_cluster ? [{
      namespaceSelector = { matchLabels = { "kubernetes.io/metadata.name" = "monitoring" } }
      podSelector       = { matchLabels = { "app.kubernetes.io/name" = "prometheus" } }
    }] : [],
    var.monitoring.azure_monitor ? [{
      namespaceSelector = { matchLabels = { "kubernetes.io/metadata.name" = "kube-system" } }
    }] : [],
  )

  spaces = flatten([for space in distinct(var.pools[*].namespace) : [
    {
      apiVersion = "v1"
      kind       = "Namespace"
      metadata = {
        name = space
        labels = merge(local.labels, {
          "app.kubernetes.io/name"             = space
          "ncdemo.io/jobs"                     = "true"
          "pod-security.kubernetes.io/enforce" = "restricted"
          "pod-security.kubernetes.io/warn"    = "restricted"
        })
      }
    },
    {
      apiVersion = "v1"
      kind       = "ServiceAccount"
      metadata = {
        name        = "ncdemo-job"
        namespace   = space
        labels      = merge(local.labels, { "app.kubernetes.io/name" = "ncdemo-job" })
        annotations = { "azure.workload.identity/client-id" = module.identity_jobs.client_id }
      }
      automountServiceAccountToken = false
    },
    {
      apiVersion = "networking.k8s.io/v1"
      kind       = "NetworkPolicy"
      metadata = {
        name      = "same-namespace-only"
        namespace = space
        labels    = merge(local.labels, { "app.kubernetes.io/name" = "same-namespace-only" })
      }
      spec = {
        podSelector = {}
        policyTypes = ["Ingress"]
        ingress     = [{ from = [{ podSelector = {} }] }]
      }
    },
  ]])

  scraped = [for space in distinct(var.pools[*].namespace) : {
    apiVersion = "networking.k8s.io/v1"
    kind       = "NetworkPolicy"
    metadata = {
      name      = "scrapers"
      namespace = space
      labels    = merge(local.labels, { "app.kubernetes.io/name" = "scrapers" })
    }
    spec = {
      podSelector = { matchLabels = { "app.kubernetes.io/name" = "ncdemo-job" } }
      policyTypes = ["Ingress"]
      ingress     = [{ from = local.scrapers, ports = [{ protocol = "TCP", port = "metrics" }] }]
    }
  } if length(local.scrapers) > 0]

  manifests = concat(local.spaces, local.scraped)
}
