"""What the picture of a stack shows of its resources: inside the network, and around it."""

from collections.abc import Callable
from typing import Any

from ncdemo.infra.render import Rendered
from ncdemo.spec.sizes import find

MakeBox = Callable[..., Any]
Around = tuple[Any, str, str]
"""A box, the label of its arrow, and the arrow's way as seen from the network: to, from or both."""
SERVERS = {"pushgateway": "Pushgateway", "prometheus": "Prometheus", "mlflow": "MLflow", "grafana": "Grafana"}


def inside(rendered: Rendered, box: MakeBox) -> Any:
    """Return the frame of the network, or of the cluster that exists already, with all that runs in it."""
    clusters = rendered.of("ManagedCluster")
    machines = [vm_box(rendered, vm, box) for vm in rendered.of("VirtualMachine")]
    parts = [cluster_box(rendered, clusters[0].inputs, box)] if clusters else machines
    if not rendered.of("VirtualNetwork"):
        context = rendered.stack.spec.kubernetes.context or "the current context"
        return box(f"Kubernetes cluster that exists: {context}", [], in_cluster(rendered, box), css="network")
    (network,), (nsg,) = rendered.of("VirtualNetwork"), rendered.of("NetworkSecurityGroup")
    sources = [source for rule in nsg.inputs.get("securityRules", []) for source in rule["sourceAddressPrefixes"]]
    lines = [f"SSH from {', '.join(sources)} alone" if sources else "no way in from the internet"]
    lines += [f"Bastion ({host.inputs['sku']['name']})" for host in rendered.of("BastionHost")]
    space = network.inputs["addressSpace"]["addressPrefixes"][0]
    return box(f"Virtual network {space}", ["; ".join(lines)], parts, columns=1 if clusters else 2, css="network")


def cluster_box(rendered: Rendered, cluster: dict[str, Any], box: MakeBox) -> Any:
    pools = [system_box(cluster["agentPoolProfiles"][0], box), *(pool_box(r.inputs, box) for r in rendered.of("AgentPool"))]
    title = f"AKS {cluster['kubernetesVersion']}, {cluster['sku']['tier']} tier"
    return box(title, [], [box("Node pools", [], pools, columns=3, css="group"), *in_cluster(rendered, box)], css="cluster")


def in_cluster(rendered: Rendered, box: MakeBox) -> list[Any]:
    """Return the namespaces of jobs, and what serves them."""
    spaces = [
        m["metadata"]["name"] for m in rendered.manifests() if m["kind"] == "Namespace" and "ncdemo.io/jobs" in m["metadata"]["labels"]
    ]
    frames = [box(f"Namespace {space}", [], job_boxes(rendered, space, box), columns=2, css="group") for space in spaces]
    served = service_boxes(rendered, box)
    found = [box("Jobs", [], frames, columns=2, css="group")] if frames else []
    return found + ([box("Services", [], served, columns=3, css="group")] if served else [])


def system_box(pool: dict[str, Any], box: MakeBox) -> Any:
    return box("system", [f"{pool['count']} x {short(pool['vmSize'])}, always on"], css="pool")


def pool_box(pool: dict[str, Any], box: MakeBox) -> Any:
    size = find(pool["vmSize"])
    gpus = f"{size.gpus} x {size.gpu_model} a node" if size and size.gpus else "no GPU"
    kind = "spot" if pool.get("scaleSetPriority") == "Spot" else "on demand"
    return box(pool["agentPoolName"], [f"{pool['minCount']}..{pool['maxCount']} x {short(pool['vmSize'])}", f"{kind}, {gpus}"], css="pool")


def job_boxes(rendered: Rendered, space: str, box: MakeBox) -> list[Any]:
    jobs = [m for m in rendered.manifests() if m["kind"] == "Job" and m["metadata"]["namespace"] == space]
    return [job_box(rendered, m["metadata"]["labels"]["ncdemo.io/job"], box) for m in jobs]


def job_box(rendered: Rendered, name: str, box: MakeBox) -> Any:
    """Return a job by its own name: the hash behind it changes with every value."""
    run = next(run for run in rendered.stack.jobs if run.job.name == name)
    where = f"on {run.pool.name}" if run.pool else "on any node"
    lines = [f"{run.run.kind}, {count(run.job.nodes, 'node')} x {count(run.gpus, 'GPU')}", where]
    return box(name, lines + (["with an engine's container"] if run.job.server else []), css="job")


def service_boxes(rendered: Rendered, box: MakeBox) -> list[Any]:
    found = [
        box("Kueue", ["all nodes of a job, or none"], css="service") for r in rendered.of("Release") if r.inputs.get("name") == "kueue"
    ]
    agents = [m["metadata"]["name"] for m in rendered.manifests() if m["kind"] == "DaemonSet"]
    if agents:
        found.append(box("GPU agents", [", ".join(agents)], css="service"))
    names = [m["metadata"]["name"] for m in rendered.manifests() if m["kind"] in ("StatefulSet", "Deployment")]
    servers = [SERVERS[name] for name in names if name in SERVERS]
    return found + ([box("Monitoring", [", ".join(servers)], css="service")] if servers else [])


def vm_box(rendered: Rendered, vm: Any, box: MakeBox) -> Any:
    """Return a VM with the jobs that are started on it."""
    size = find(vm.inputs["hardwareProfile"]["vmSize"])
    spot = "spot" if vm.inputs.get("priority") == "Spot" else "on demand"
    name = vm.inputs["osProfile"]["computerName"]
    stops = [r.inputs["dailyRecurrence"]["time"] for r in rendered.of("GlobalSchedule") if r.inputs["name"].endswith(vm.inputs["vmName"])]
    gpus = f", {size.gpus} x {size.gpu_model}" if size and size.gpus else ""
    lines = [f"{short(vm.inputs['hardwareProfile']['vmSize'])}{gpus}", f"{spot}, gone when idle"]
    lines += [f"shut down daily at {time[:2]}:{time[2:]} UTC" for time in stops]
    commands = [r for r in rendered.of("VirtualMachineRunCommandByVirtualMachine") if r.inputs["vmName"] == vm.inputs["vmName"]]
    ids = {run_id: job for job, run_id in rendered.outputs["jobs"].items()}
    started = [ids[r.inputs["runCommandName"].rpartition("-")[0]] for r in commands]
    jobs = [run.job.name for run in rendered.stack.jobs if run.job.name in started]
    return box(name, lines, [job_box(rendered, job, box) for job in jobs], css="pool")


def outside(rendered: Rendered, box: MakeBox) -> list[Around]:
    """Return what stands beside the network, from what jobs need first to what guards the bill."""
    found: list[Around] = [
        (box(f"Registry {r.inputs['sku']['name']}", ["container images, no admin user"]), "images", "from") for r in rendered.of("Registry")
    ]
    containers = [r.inputs["containerName"] for r in rendered.of("BlobContainer")]
    for account in rendered.of("StorageAccount"):
        if account.inputs["kind"] == "FileStorage":
            size = rendered.of("FileShare")[0].inputs["shareQuota"]
            found.append((box("Azure Files", [f"{size} GiB over NFS, at /files", "from this network alone"]), "shared files", "both"))
        else:
            lines = [f"containers {', '.join(containers)}", "by identity, no keys"]
            found.append((box(f"Blob storage {account.inputs['sku']['name'].partition('_')[2]}", lines), "results, data sets", "both"))
    identities = [r.inputs["resourceName"].rsplit("-", 1)[-1] for r in rendered.of("UserAssignedIdentity")]
    if identities:
        roles = len(rendered.of("RoleAssignment"))
        found.append((box("Identities", [", ".join(identities), f"{roles} role assignments, each at one resource"]), "tokens", "from"))
    if rendered.of("VirtualMachineRunCommandByVirtualMachine"):
        found.append((box("Run commands", ["write and start each job's systemd unit"]), "starts jobs", "from"))
    if rendered.of("AzureMonitorWorkspace"):
        found.append((box("Azure Monitor", ["workspace, managed Prometheus"]), "metrics", "to"))
    for workspace in rendered.of("Workspace"):
        cap = workspace.inputs["workspaceCapping"]["dailyQuotaGb"]
        lines = [f"by identity, no keys; {cap:g} GB a day"]
        found.append((box("Application Insights", lines), "figures of runs", "to"))
    found += [(box("Budget", [f"{r.inputs['amount']:,} USD a month, e-mail at 50, 80, 100 %"]), "", "to") for r in rendered.of("Budget")]
    return found


def short(size: str) -> str:
    return size.removeprefix("Standard_")


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
