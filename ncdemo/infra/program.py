"""The whole stack: which components there are on each target, and what each gets of the others.

Read this file first: the rest of infra says how each part is made.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pulumi_random as random
import pulumi_tls as tls
from pulumi_azure_native import resources

from ncdemo.infra.aks import Cluster, ClusterArgs
from ncdemo.infra.alert_rules import rule_files
from ncdemo.infra.application_insights import ApplicationInsights, ApplicationInsightsArgs
from ncdemo.infra.azure_monitor import AzureMonitor, AzureMonitorArgs, managed_scrapes
from ncdemo.infra.cloud_init import CUSTOM_DATA_BYTES
from ncdemo.infra.component import Place, tags_of
from ncdemo.infra.cost_guard import CostGuard, CostGuardArgs
from ncdemo.infra.gpu_agents import GpuAgents, GpuAgentsArgs
from ncdemo.infra.gpu_pool import GpuPool, GpuPoolArgs
from ncdemo.infra.identity import Identity, IdentityArgs, grant
from ncdemo.infra.job_namespace import SERVICE_ACCOUNT, JobNamespace, NamespaceArgs
from ncdemo.infra.job_plan import job_id
from ncdemo.infra.job_pod import JobArgs
from ncdemo.infra.jobs import TrainingOrBenchmark
from ncdemo.infra.kueue import QUEUE, Kueue, KueueArgs
from ncdemo.infra.managed_rules import ManagedRules, ManagedRulesArgs
from ncdemo.infra.monitoring import MLFLOW_ACCOUNT, MLFLOW_URI, PUSHGATEWAY_URI, Monitoring, MonitoringArgs
from ncdemo.infra.monitoring import NAMESPACE as MONITORING
from ncdemo.infra.network import Network, NetworkArgs
from ncdemo.infra.registry import Registry, RegistryArgs, image_ref
from ncdemo.infra.storage import Storage, StorageArgs
from ncdemo.infra.vm import Vm, VmArgs, vm_cloud_init
from ncdemo.infra.vm_jobs import VmJob, VmJobArgs
from ncdemo.spec.job import NCDEMO_PUSHGATEWAY
from ncdemo.spec.live_metrics import scraped_port, scrapers
from ncdemo.spec.run_folder import CHECKPOINTS, DATASETS, METRICS, MLFLOW, RESULTS
from ncdemo.spec.stack_file import JobRun, Stack

Outputs = Mapping[str, Any]


def deploy(
    stack: Stack, *, today: datetime.date, hf_token: pulumi.Input[str] | None = None, alert_webhook: pulumi.Input[str] | None = None
) -> Outputs:
    """Declare every resource of a stack; return its outputs."""
    check(stack)
    if stack.spec.target == "kubernetes":
        return existing_cluster(stack, hf_token, alert_webhook)
    azure = Azure.of(stack, today)
    return on_aks(stack, azure, hf_token, alert_webhook) if stack.spec.target == "aks" else on_vms(stack, azure, hf_token)


def check(stack: Stack) -> None:
    """Raise SpecError for what only rendering shows."""
    if stack.spec.target == "vm":
        size = len(vm_cloud_init(stack.spec.vm, "0" * 36, "x" * 24 + ".file.core.windows.net").encode())
        if size > CUSTOM_DATA_BYTES:
            text = f"makes cloud-init {size:,} bytes, and Azure takes {CUSTOM_DATA_BYTES:,}; have it fetch a script from Blob instead"
            raise stack.mistake(("vm", "setup"), text)


@dataclass(frozen=True)
class Azure:
    """What a stack has in Azure on either target."""

    place: Place
    network: Network
    jobs: Identity
    storage: Storage
    registry: Registry
    connection: pulumi.Output[str] | None
    """Connection string of the Application Insights resource; None where there is none."""

    @classmethod
    def of(cls, stack: Stack, today: datetime.date) -> "Azure":
        spec = stack.spec
        # Without the group's tags, nobody knows whose it is.
        tags = tags_of(stack.name, spec.all_tags)
        name = f"rg-ncdemo-{stack.name}"
        group = resources.ResourceGroup("resource-group", resource_group_name=name, location=spec.location, tags=tags)
        suffix = random.RandomString("suffix", length=6, special=False, upper=False)
        place = Place(stack.name, spec.location, group.name, suffix.result, tags)
        network = Network("network", NetworkArgs(place, spec.network, vms=spec.target == "vm"))
        jobs = Identity("identity-jobs", IdentityArgs(place, "jobs"))
        mlflow = spec.target == "aks" and spec.monitoring.in_cluster
        storage = Storage("storage", StorageArgs(place, spec.storage, network.subnet_id, mlflow=mlflow))
        for container in (CHECKPOINTS, METRICS):
            jobs.grant(container, "Storage Blob Data Contributor", storage.containers[container])
        jobs.grant(DATASETS, "Storage Blob Data Reader", storage.containers[DATASETS])
        registry = Registry("registry", RegistryArgs(place))
        if spec.cost_guard.monthly_budget_usd:
            CostGuard("cost-guard", CostGuardArgs(place, spec.cost_guard, group.id, today))
        connection = None
        if spec.monitoring.application_insights:
            insights = ApplicationInsights(
                "application-insights", ApplicationInsightsArgs(place, spec.monitoring.application_insights_gb_per_day)
            )
            jobs.grant("application-insights", "Monitoring Metrics Publisher", insights.id)
            connection = insights.connection_string
        return cls(place, network, jobs, storage, registry, connection)

    def image(self, stack: Stack, name: str) -> pulumi.Output[str]:
        return image_ref(stack.spec.images, name, self.registry.server)

    def outputs(self, stack: Stack) -> dict[str, Any]:
        return {
            "resource_group": self.place.resource_group,
            "storage_account": self.storage.account,
            "registry": self.registry.server,
            "results": RESULTS,
            "target": stack.spec.target,
        }


def on_aks(stack: Stack, azure: Azure, hf_token: pulumi.Input[str] | None, alert_webhook: pulumi.Input[str] | None) -> Outputs:
    """Declare the cluster, its pools and agents, and the jobs."""
    spec, place = stack.spec, azure.place
    control = Identity("identity-cluster", IdentityArgs(place, "cluster"))
    cluster = Cluster("cluster", ClusterArgs(place, spec.aks, control, azure.network.subnet_id, spec.monitoring.azure_monitor))
    grant(azure.registry, "pull", "AcrPull", azure.registry.id, cluster.kubelet, salt=place.name("kubelet"))
    for pool in spec.pools:
        version = spec.aks.kubernetes_version
        GpuPool(f"pool-{pool.name}", GpuPoolArgs(place, pool, cluster.name, version, azure.network.subnet_id))
    # cluster_identifier: new credentials of the same cluster don't replace what lives in it.
    provider = k8s.Provider("kubernetes", kubeconfig=cluster.kubeconfig, cluster_identifier=cluster.id, enable_server_side_apply=True)
    if any(pool.size.gpus for pool in spec.pools):
        GpuAgents("gpu-agents", GpuAgentsArgs(provider))
    if spec.monitoring.azure_monitor:
        workspace = AzureMonitor("azure-monitor", AzureMonitorArgs(place, cluster.id, provider, managed_scrapes(stack))).workspace_id
        if spec.monitoring.azure_monitor_alerts:
            ManagedRules("managed-rules", ManagedRulesArgs(place, workspace, rule_files(spec), spec.cost_guard.alert_emails))
    if spec.monitoring.in_cluster:
        mlflow = Identity("identity-mlflow", IdentityArgs(place, "mlflow"))
        mlflow.grant(MLFLOW, "Storage Blob Data Contributor", azure.storage.containers[MLFLOW])
        mlflow.trust(cluster.issuer, MONITORING, MLFLOW_ACCOUNT)
        image, account = azure.image(stack, "mlflow"), azure.storage.account
        own: dict[str, Any] = {"own_cluster": True, "rules": rule_files(spec), "runs": stack.scraped_namespaces, "webhook": alert_webhook}
        Monitoring("monitoring", MonitoringArgs(spec.monitoring, provider, image, account, mlflow.client_id, **own))
    spaces = stack.namespaces
    made = {}
    for space in spaces:
        azure.jobs.trust(cluster.issuer, space, SERVICE_ACCOUNT)
        files: dict[str, Any] = {
            "files": azure.storage.files_account,
            "files_gib": spec.storage.files_gib,
            "resource_group": place.resource_group,
        }
        space_args = NamespaceArgs(
            space,
            provider,
            azure.jobs.client_id,
            hf_token,
            azure.connection,
            **files if spec.storage.files_gib else {},
            **who_scrapes(stack, space),
        )
        made[space] = JobNamespace(f"namespace-{space}", space_args)
    after: list[pulumi.Resource] = list(made.values())
    if spec.aks.kueue:
        after.append(Kueue("kueue", KueueArgs(provider, spec.pools, tuple(spaces))))
    for run in stack.jobs:
        job = job_args(
            stack, run, provider, azure.image(stack, run.image), azure.storage.account, hf_token, queue=QUEUE if spec.aks.kueue else None
        )
        TrainingOrBenchmark(f"job-{run.job.name}", job, pulumi.ResourceOptions(depends_on=after))
    return {
        **azure.outputs(stack),
        "cluster": cluster.name,
        "jobs": job_names(stack),
        "connect": pulumi.Output.concat("az aks get-credentials -g ", place.resource_group, " -n ", cluster.name),
    }


def existing_cluster(stack: Stack, hf_token: pulumi.Input[str] | None, alert_webhook: pulumi.Input[str] | None) -> Outputs:
    """Declare the jobs on a cluster that exists already; nothing of Azure."""
    spec = stack.spec
    check_repository(stack)
    cluster = spec.kubernetes
    provider = k8s.Provider("kubernetes", context=cluster.context, kubeconfig=cluster.kubeconfig, enable_server_side_apply=True)
    if spec.monitoring.in_cluster:
        image = image_ref(spec.images, "mlflow", None)
        own: dict[str, Any] = {"own_cluster": False, "rules": rule_files(spec), "storage_class": cluster.storage_class}
        own |= {"runs": stack.scraped_namespaces, "webhook": alert_webhook}
        args = MonitoringArgs(spec.monitoring, provider, image, None, None, **own)
        Monitoring("monitoring", args)
    shared = any(run.job.nodes > 1 for run in stack.jobs)
    made: list[pulumi.Resource] = [
        JobNamespace(
            f"namespace-{space}",
            NamespaceArgs(space, provider, hf_token=hf_token, runs=cluster, shared_runs=shared, **who_scrapes(stack, space)),
        )
        for space in stack.namespaces
    ]
    for run in stack.jobs:
        image = image_ref(spec.images, run.image, None)
        job = job_args(stack, run, provider, image, None, hf_token, queue=cluster.queue)
        TrainingOrBenchmark(f"job-{run.job.name}", job, pulumi.ResourceOptions(depends_on=made))
    return {"target": spec.target, "jobs": job_names(stack)}


def on_vms(stack: Stack, azure: Azure, hf_token: pulumi.Input[str] | None) -> Outputs:
    """Declare the machines, and a run command per job and node."""
    spec, place = stack.spec, azure.place
    azure.jobs.grant("pull", "AcrPull", azure.registry.id)
    keys: tuple[pulumi.Input[str], ...] = spec.vm.ssh_public_keys
    if not keys:
        keys = (tls.PrivateKey("unused-key", algorithm="RSA", rsa_bits=4096).public_key_openssh,)
    vms = {
        pool.name: tuple(
            Vm(
                f"vm-{pool.name}-{index}",
                VmArgs(
                    place,
                    spec.vm,
                    pool,
                    index,
                    azure.network.subnet_id,
                    azure.jobs,
                    keys,
                    public_address=bool(spec.network.ssh_from),
                    shutdown_utc=spec.cost_guard.shutdown_utc,
                    files=azure.storage.files_account,
                ),
            )
            for index in range(pool.max_count)
        )
        for pool in spec.pools
    }
    # The identity with its roles first: it writes the run commands' output, and pulls the images.
    before: list[pulumi.Resource] = [azure.jobs]
    for order, run in enumerate(stack.jobs):
        assert run.pool
        args = VmJobArgs(
            place,
            run,
            spec.images,
            azure.image(stack, run.image),
            vms[run.pool.name][: run.job.nodes],
            order,
            azure.storage.account,
            azure.jobs.client_id,
            hf_token,
            azure.connection,
        )
        # One after the other, so that two jobs of several nodes reach every VM in the same order.
        before = [VmJob(f"job-{run.job.name}", args, pulumi.ResourceOptions(depends_on=before))]
    return {**azure.outputs(stack), "vms": [vm.azure_name for pool in vms.values() for vm in pool], "jobs": job_names(stack)}


def job_args(
    stack: Stack,
    run: JobRun,
    provider: pulumi.ProviderResource,
    image: pulumi.Input[str],
    account: pulumi.Input[str] | None,
    hf_token: pulumi.Input[str] | None,
    *,
    queue: str | None,
) -> JobArgs:
    spec = stack.spec
    return JobArgs(
        run=run,
        images=spec.images,
        image=image,
        namespace=run.namespace,
        provider=provider,
        account=account,
        existing=spec.kubernetes if spec.target == "kubernetes" else None,
        region=None if spec.target == "kubernetes" else spec.location,
        queue=queue,
        files=bool(spec.storage.files_gib),
        has_token=hf_token is not None,
        has_insights=spec.monitoring.application_insights,
        metrics_port=scraped_port(spec, run.run),
        env={"MLFLOW_TRACKING_URI": MLFLOW_URI, NCDEMO_PUSHGATEWAY: PUSHGATEWAY_URI} if spec.monitoring.in_cluster else {},
    )


def who_scrapes(stack: Stack, space: str) -> dict[str, Any]:
    reader = stack.spec.monitoring.in_cluster and space in stack.scraped_namespaces
    return {"scrapers": tuple(scrapers(stack.spec)), "reader": reader}


def job_names(stack: Stack) -> dict[str, str]:
    """Return what each job's run is called."""
    return {run.job.name: job_id(run, stack.spec.images) for run in stack.jobs}


def check_repository(stack: Stack) -> None:
    """Raise SpecError where images would be in a registry of the stack's own, which a cluster that exists lacks."""
    if stack.spec.images.repository is None and (stack.jobs or stack.spec.monitoring.in_cluster):
        text = "is needed with target: kubernetes, where the stack has no registry of its own; name one, e.g. registry.example/ncdemo"
        raise stack.mistake(("images", "repository"), text)
