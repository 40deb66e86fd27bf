"""Terraform's side in the normal form: what each resource's arguments are in Azure's own terms."""

from collections.abc import Iterator
from typing import Any

from ncdemo.infra.stand_in import SUBSCRIPTION, StandIn
from ncdemo.infra.terraform.azurerm import KINDS
from ncdemo.infra.terraform.azurerm.kind import Convert, Kind
from ncdemo.infra.terraform.configuration import Made
from ncdemo.infra.terraform.normal import Resource, flat
from ncdemo.spec.base import SpecError


def resources(made: list[Made]) -> list[Resource]:
    """Return every resource; a storage account's Blob settings are one of their own, as in Azure."""
    return [one for resource in made for one in (_converted(resource), *_blob_service(resource))]


def kind_of(type_: str) -> Kind:
    if type_ not in KINDS:
        raise SpecError(f"terraform: {type_} isn't in the table of what Azure calls it; add it to ncdemo/infra/terraform/azurerm")
    return KINDS[type_]


def _converted(made: Made) -> Resource:
    kind = kind_of(made.type)
    found = dict(kind.fixed)
    said: dict[tuple[str, str], dict[str, Any]] = {}
    for argument, key, value in _arguments(made.arguments, kind):
        if argument not in kind.paths:
            found[f"azurerm:{argument}"] = value
            continue
        target = kind.paths[argument]
        sent = {path.format(key=key): one for path, one in kind.when.get(argument, {}).items()} if value else {}
        if target is not None:
            path = target.path if isinstance(target, Convert) else target
            value = target.of(value) if isinstance(target, Convert) else value
            sent |= dict(flat(value, path.format(key=key)))
            # azurerm 4 and 5 name the same property otherwise; nothing said by one of them counts, too.
            if said.setdefault((path, key), sent) != sent:
                raise SpecError(
                    f"{made.address}: two arguments disagree on {path.format(key=key)}: {said[path, key]} and {sent}; make them equal"
                )
        found |= sent
    if made.type == "azurerm_storage_account":
        found["sku.name"] = f"{made.arguments['account_tier']}_{made.arguments['account_replication_type']}"
    return Resource(kind.azure, kind.name(made.arguments), found, made.address)


def _arguments(value: dict[str, Any], kind: Kind, path: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield dotted argument, key of the repeated block that it is in, and value; what the table knows whole isn't opened."""
    for name, one in value.items():
        at = f"{path}{name}"
        if one is None:
            continue
        blocks = isinstance(one, list) and all(isinstance(item, dict) for item in one) and at not in kind.paths
        if not blocks:
            yield at, key, one
            continue
        for item in one:
            named = "-".join(f"{item[part]}" for part in kind.keys[at].split(",")) if at in kind.keys else key
            yield from _arguments(item, kind, f"{at}.", named)


def _blob_service(made: Made) -> list[Resource]:
    blocks = made.arguments.get("blob_properties", []) if made.type == "azurerm_storage_account" else []
    found = {}
    for block in blocks:
        found["properties.isVersioningEnabled"] = block.get("versioning_enabled", False)
        for argument, name in (
            ("delete_retention_policy", "deleteRetentionPolicy"),
            ("container_delete_retention_policy", "containerDeleteRetentionPolicy"),
        ):
            for policy in block.get(argument, []):
                found |= {f"properties.{name}.enabled": True, f"properties.{name}.days": policy["days"]}
    service = Resource("Microsoft.Storage/storageAccounts/blobServices", made.arguments["name"], found, made.address) if found else None
    return [service] if service else []


def known(type_: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what only Azure knows of a resource: the same stand-ins that Pulumi's side is rendered with."""
    if type_ == "azurerm_client_config":
        return {"subscription_id": SUBSCRIPTION}
    kind, name = kind_of(type_), kind_of(type_).name(arguments)
    answers = StandIn(unknown=False)
    group = arguments.get("resource_group_name", name)
    namespace, *types = kind.azure.split("/")
    way = "/".join(f"{kind_}/{one}" for kind_, one in zip(types, _names(types, name), strict=True))
    base = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}"
    found: dict[str, Any] = {"id": base if type_ == "azurerm_resource_group" else f"{base}/providers/{namespace}/{way}"}
    if type_ == "azurerm_user_assigned_identity":
        made = answers._UserAssignedIdentity(name)
        found |= {"client_id": made["clientId"], "principal_id": made["principalId"]}
    elif type_ == "azurerm_container_registry":
        found["login_server"] = answers._Registry(name)["loginServer"]
    elif type_ == "azurerm_application_insights":
        found["connection_string"] = answers._Component(name)["connectionString"]
    elif type_ == "azurerm_kubernetes_cluster":
        made = answers._ManagedCluster(name)
        found["oidc_issuer_url"] = made["oidcIssuerProfile"]["issuerURL"]
        found["kubelet_identity"] = [{"object_id": made["identityProfile"]["kubeletidentity"]["objectId"]}]
    return found


def _names(types: list[str], name: str) -> list[str]:
    """Blob and file services are called default, and no argument names them."""
    names = iter(name.split("/"))
    return ["default" if type_ in ("blobServices", "fileServices") else next(names, "default") for type_ in types]
