"""Ask a cluster everything, in the order in which one thing needs the other. What isn't allowed, or isn't known, is said as that.

examine(lambda: Kube.connect("aks-ncdemo-dev", None, login), wanted, azure, "ncdemo doctor cluster aks-dev --probe-storage")
"""

from collections.abc import Callable

from ncdemo.operate.inside import gpus, identity, pools, queues, spaces, storage
from ncdemo.operate.inside.azure import Azure, AzureSilent
from ncdemo.operate.inside.wanted import Wanted
from ncdemo.operate.job import Unreachable
from ncdemo.operate.kube import Kube, LoggedOut, NotThere, Refused
from ncdemo.spec.base import SpecError
from ncdemo.spec.finding import Finding

RIGHTS = "ask the cluster's admins for a role that may read it, e.g. Azure Kubernetes Service RBAC Cluster Admin"


def examine(connect: Callable[[], Kube], wanted: Wanted, azure: Azure, probe: str) -> tuple[list[Finding], Kube | None]:
    """Return every finding, and the cluster's API where it answers. `probe` is the command that tries the storage."""
    try:
        kube = connect()
        version = kube.ask("GET", "/version")
    except Refused:
        # Who may not ask even that is known all the same.
        version = {}
    except SpecError as error:
        stopped = _in_azure(wanted, azure) if isinstance(error, Unreachable) else None
        return [stopped or _of(error, "cluster", "fail")], None
    found = [Finding("cluster", "ok", f"Kubernetes {version.get('gitVersion', 'of unknown version')} at {kube.host}")]
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("pools", lambda: pools.pools(wanted, azure)),
        ("nodes", lambda: pools.nodes(kube, wanted)),
        ("device plugin", lambda: gpus.device_plugin(kube, wanted)),
        ("gpu", lambda: gpus.allocatable(kube, wanted)),
        ("namespaces", lambda: spaces.namespaces(kube, wanted)),
        ("workload identity", lambda: identity.webhook(kube, wanted)),
        ("accounts", lambda: identity.accounts(kube, wanted, azure)),
        ("federation", lambda: identity.trusts(wanted, azure)),
        ("kueue", lambda: queues.kueue(kube, wanted)),
        ("monitoring", lambda: spaces.services(kube, wanted)),
        ("volumes", lambda: storage.volumes(kube, wanted)),
        ("storage", lambda: storage.recent(kube, wanted, probe)),
    ]
    for name, check in checks:
        try:
            found += check()
        except Refused as error:
            found.append(Finding(name, "unknown", f"no rights: {str(error).rpartition('; ')[0]}", RIGHTS))
        except (AzureSilent, NotThere) as error:
            found.append(_of(error, name, "unknown"))
        except (Unreachable, LoggedOut) as error:
            return [*found, _of(error, "cluster", "fail")], None
    return found, kube


def _of(error: SpecError, check: str, status: str) -> Finding:
    text, _, remedy = str(error).rpartition("; ")
    return Finding(check, status, text or remedy, remedy)  # type: ignore[arg-type]


def _in_azure(wanted: Wanted, azure: Azure) -> Finding | None:
    """Return why a cluster doesn't answer, if Azure knows."""
    if not wanted.cluster:
        return None
    try:
        cluster = azure.cluster()
    except AzureSilent:
        return None
    where = f"-g {wanted.resource_group} -n {wanted.cluster}"
    if cluster is None:
        return Finding("cluster", "fail", f"there is no cluster {wanted.cluster} in {wanted.resource_group}", wanted.up)
    if cluster.get("powerState", {}).get("code") == "Stopped":
        return Finding("cluster", "fail", f"{wanted.cluster} is stopped", f"az aks start {where}")
    return None
