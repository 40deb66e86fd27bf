"""By what names a job is found again: its labels in Kubernetes and in Prometheus, its unit on a VM."""

NAME, INSTANCE = "app.kubernetes.io/name", "app.kubernetes.io/instance"
APPLICATION = "ncdemo-job"
"""NAME of every job of ours; INSTANCE is the job's name with its hash."""
JOB, KIND = "ncdemo.io/job", "ncdemo.io/kind"
"""Its name in the stack, and the kind of its spec."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
METRICS_PORT = "metrics"
"""Name of the port of a pod where Prometheus finds the run's metrics while it runs."""
PROMETHEUS_JOB = "ncdemo"
"""Label `job` of every metric of a run, pushed or scraped."""
CONTAINER = "job"
"""Of a pod: the one that runs the workload."""
VM_STATE = "/var/lib/ncdemo"


def job_unit(name: str) -> str:
    """Return the systemd unit that runs a job on a VM."""
    return f"ncdemo-job@{name}.service"
