"""Whether jobs act as their Azure identity: the webhook, their service account, and the trust that Azure has in it."""

from ncdemo.operate.inside.azure import Azure, AzureSilent
from ncdemo.operate.inside.wanted import CLIENT_ID, Manifest, Wanted, name, space
from ncdemo.operate.kube import Kube, NotThere
from ncdemo.spec.finding import Finding

WEBHOOK = "mutation.azure-workload-identity.io"
"""As Azure/azure-workload-identity names it; AKS installs it with the cluster's setting."""


def accounts_of(wanted: Wanted) -> list[Manifest]:
    """Return the service accounts that act as an identity."""
    return [one for one in wanted.of_kind("ServiceAccount") if one["metadata"].get("annotations", {}).get(CLIENT_ID)]


def webhook(kube: Kube, wanted: Wanted) -> list[Finding]:
    """Say whether pods get their token: without the webhook they start, and have no identity."""
    if not accounts_of(wanted):
        return []
    listed = kube.ask("GET", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations")["items"]
    hook = next((hook for one in listed for hook in one.get("webhooks", []) if hook["name"] == WEBHOOK), None)
    enable = f"az aks update -g {wanted.resource_group} -n {wanted.cluster} --enable-oidc-issuer --enable-workload-identity"
    if hook is None:
        return [Finding("workload identity", "fail", "its webhook isn't there, so pods get no identity", enable)]
    service = hook["clientConfig"].get("service")
    if service:
        selector = f"kubernetes.io/service-name={service['name']}"
        slices = kube.ask("GET", f"/apis/discovery.k8s.io/v1/namespaces/{service['namespace']}/endpointslices", labelSelector=selector)[
            "items"
        ]
        if not any(one.get("conditions", {}).get("ready", True) for each in slices for one in each.get("endpoints") or []):
            remedy = f"kubectl get pods -n {service['namespace']} -l azure-workload-identity.io/system=true"
            return [Finding("workload identity", "fail", f"no pod of its webhook ({service['name']}) is ready", remedy)]
    return [Finding("workload identity", "ok", "its webhook is there")]


def accounts(kube: Kube, wanted: Wanted, azure: Azure) -> list[Finding]:
    """Compare each service account's client id with the identity in Azure."""
    return [_account(kube, one, wanted, azure) for one in accounts_of(wanted)]


def _account(kube: Kube, account: Manifest, wanted: Wanted, azure: Azure) -> Finding:
    check = f"account {space(account)}/{name(account)}"
    try:
        live = kube.ask("GET", f"/api/v1/namespaces/{space(account)}/serviceaccounts/{name(account)}")
    except NotThere:
        return Finding(check, "fail", "isn't there, so no pod of its jobs can start", wanted.up)
    said = (live["metadata"].get("annotations") or {}).get(CLIENT_ID)
    if not said:
        return Finding(check, "fail", f"has no annotation {CLIENT_ID}, so its pods are nobody in Azure", wanted.up)
    identity = next((one["resourceName"] for one in wanted.trusts if one["subject"] == subject(account)), None)
    if identity is None:
        return Finding(check, "ok", f"acts as client id {said}")
    try:
        right = azure.client_id(identity)
    except AzureSilent as error:
        text, _, remedy = str(error).rpartition("; ")
        return Finding(check, "unknown", f"acts as client id {said}; whether that is {identity} isn't known ({text})", remedy)
    if right is None:
        return Finding(check, "fail", f"its identity {identity} doesn't exist in Azure", wanted.up)
    if right != said:
        return Finding(check, "fail", f"acts as client id {said}, and {identity} has {right}", wanted.up)
    return Finding(check, "ok", f"acts as {identity} (client id {said})")


def trusts(wanted: Wanted, azure: Azure) -> list[Finding]:
    """Compare what Azure trusts with the service accounts and the cluster's issuer."""
    if not wanted.trusts:
        return []
    cluster = azure.cluster()
    if cluster is None:
        return []  # the pools' finding says so
    issuer = (cluster.get("oidcIssuerProfile") or {}).get("issuerURL")
    if not issuer:
        remedy = f"az aks update -g {wanted.resource_group} -n {wanted.cluster} --enable-oidc-issuer --enable-workload-identity"
        return [Finding("federation", "fail", "the cluster has no OIDC issuer", remedy)]
    found = []
    for want in wanted.trusts:
        identity, subject_ = want["resourceName"], want["subject"]
        have = azure.trusts(identity)
        mine = [one for one in have or [] if one.get("subject") == subject_]
        text = None
        if have is None:
            text = f"{identity} doesn't exist in Azure"
        elif not mine:
            text = f"{identity} doesn't trust {subject_}"
        elif mine[0].get("issuer") != issuer:
            text = f"{identity} trusts {subject_} of another cluster ({mine[0].get('issuer')}, and this one is {issuer})"
        elif not set(want["audiences"]) <= set(mine[0].get("audiences", [])):
            text = (
                f"{identity} trusts {subject_} for {', '.join(mine[0].get('audiences', [])) or 'no audience'}, not {want['audiences'][0]}"
            )
        found.append(
            Finding("federation", "fail", text, wanted.up) if text else Finding("federation", "ok", f"{identity} trusts {subject_}")
        )
    return found


def subject(account: Manifest) -> str:
    return f"system:serviceaccount:{space(account)}:{name(account)}"
