"""A namespace of jobs: who they are in Azure, who may reach them, their secret, and the volumes that they share."""

from dataclasses import dataclass
from typing import Any

import pulumi

from ncdemo.infra import manifests as m
from ncdemo.infra.component import Component
from ncdemo.infra.prometheus import ACCOUNT as PROMETHEUS_ACCOUNT
from ncdemo.infra.storage import SHARE
from ncdemo.spec.capacity import ExistingCluster
from ncdemo.spec.job_labels import APPLICATION, METRICS_PORT, NAME
from ncdemo.spec.stack_file import HF_TOKEN

SERVICE_ACCOUNT = "ncdemo-job"
TOKEN_SECRET = "hf-token"
INSIGHTS_SECRET, INSIGHTS_KEY = "application-insights", "connection-string"
RUNS_CLAIM, FILES_CLAIM = "ncdemo-runs", "ncdemo-files"
READER = "metrics-reader"
SCRAPERS = {
    "in_cluster": m.in_namespace("monitoring", {NAME: "prometheus"}),
    # The add-on of Azure's managed Prometheus.
    "azure_monitor": m.in_namespace("kube-system"),
}


@dataclass(frozen=True)
class NamespaceArgs:
    namespace: str
    provider: pulumi.ProviderResource
    client_id: pulumi.Input[str] | None = None
    """Azure identity of the jobs; None outside Azure."""
    hf_token: pulumi.Input[str] | None = None
    connection: pulumi.Input[str] | None = None
    """Connection string of the Application Insights resource."""
    files: pulumi.Input[str] | None = None
    """Storage account of the NFS share."""
    files_gib: int | None = None
    resource_group: pulumi.Input[str] | None = None
    runs: ExistingCluster | None = None
    """Set on a cluster that ncdemo didn't make: runs are kept on a volume there."""
    shared_runs: bool = False
    """Several nodes write runs at once."""
    scrapers: tuple[str, ...] = ()
    """Who may scrape the pods: monitoring's keys in_cluster and azure_monitor."""
    reader: bool = False
    """The cluster's own Prometheus may look for pods here, as some of them serve their metrics."""


class JobNamespace(Component):
    """What the jobs of one namespace share."""

    KIND = "namespace"

    def __init__(self, name: str, args: NamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts, key=args.namespace)
        space = args.namespace
        made = m.apply(self, "namespace", m.namespace(space, labels={"ncdemo.io/jobs": "true"}), args.provider)
        within = pulumi.ResourceOptions(depends_on=[made])
        m.apply(self, "account", m.service_account(SERVICE_ACCOUNT, space, args.client_id), args.provider, within)
        same: list[dict[str, Any]] = [{"podSelector": {}}]
        m.apply(self, "policy", m.allow_from("same-namespace-only", space, same, []), args.provider, within)
        if args.scrapers:
            sources = [SCRAPERS[key] for key in args.scrapers]
            scraped = m.allow_from("scrapers", space, sources, [METRICS_PORT], {NAME: APPLICATION})
            m.apply(self, "scrapers", scraped, args.provider, within)
        if args.reader:
            m.apply(self, "reader", m.role(READER, space, ["pods"], ["get", "list", "watch"]), args.provider, within)
            m.apply(self, "reads", m.role_binding(READER, space, PROMETHEUS_ACCOUNT, "monitoring"), args.provider, within)
        if args.hf_token is not None:
            m.apply(self, "token", secret(TOKEN_SECRET, space, HF_TOKEN, args.hf_token), args.provider, within)
        if args.connection is not None:
            m.apply(self, "insights", secret(INSIGHTS_SECRET, space, INSIGHTS_KEY, args.connection), args.provider, within)
        if args.files is not None:
            self._files(args, within)
        if args.runs:
            mode = "ReadWriteMany" if args.shared_runs else "ReadWriteOnce"
            volume = m.claim(RUNS_CLAIM, space, args.runs.runs_gib, storage_class=args.runs.storage_class, mode=mode)
            # A volume that is bound by its first pod isn't ready before there is one.
            volume["metadata"]["annotations"] = {"pulumi.com/skipAwait": "true"}
            m.apply(self, "runs", volume, args.provider, within)
        self.done()

    def _files(self, args: NamespaceArgs, within: pulumi.ResourceOptions) -> None:
        """NFS needs no key: the volume names account and share, the subnet is what may mount them."""
        assert args.files is not None
        name, size = f"{FILES_CLAIM}-{args.namespace}", f"{args.files_gib}Gi"
        csi = {
            "driver": "file.csi.azure.com",
            "volumeHandle": pulumi.Output.concat(args.files, "-", name),
            "volumeAttributes": {
                "resourceGroup": args.resource_group,
                "storageAccount": args.files,
                "shareName": SHARE,
                "protocol": "nfs",
            },
        }
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": m.meta(name, None),
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "mountOptions": ["nconnect=4", "noresvport", "actimeo=30"],
                "csi": csi,
            },
        }
        m.apply(self, "files-volume", volume, args.provider)
        claim = m.claim(FILES_CLAIM, args.namespace, args.files_gib or 0, storage_class=None, mode="ReadWriteMany")
        claim["spec"] |= {"storageClassName": "", "volumeName": name}
        m.apply(self, "files-claim", claim, args.provider, within)


def secret(name: str, namespace: str, key: str, value: pulumi.Input[str]) -> m.Manifest:
    """Return a Secret of one value."""
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": m.meta(name, namespace), "type": "Opaque"}
    return {**made, "stringData": {key: pulumi.Output.secret(value)}}
