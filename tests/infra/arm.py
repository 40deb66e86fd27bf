"""Check what the program registers on Azure against Azure's own schemas; Pulumi's mocks check nothing of it.

    problems("azure-native:storage:BlobContainer", {"accountName": "runs", "resourceGroupName": "rg", "containerName": "x"})
    # ["containerName = 'x': must keep to minLength 3"]

Two layers. The input types of the installed package say which keys azure-native takes, at every depth. The Resource
Manager schemas beside the project (shared/arm) say what Azure takes in its own body, which is rebuilt here: azure-native
lifts `properties` to their parent, renames a few keys, and moves what the address needs (resourceGroupName, ...) beside them.
Values are literals: Pulumi evaluates no template expression, so "[...]" is a string like any other.
"""

import enum
import inspect
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator, ValidationError
from pulumi import _types
from pulumi.output import Unknown
from pulumi.runtime import rpc

SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "arm"
NEEDS_SCHEMAS = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="needs Azure's schemas: the folder shared/arm beside the project")
AKS, COMPUTE, INSIGHTS = "Microsoft.ContainerService.Aks", "Microsoft.Compute", "Microsoft.Insights"
IDENTITY, NETWORK, STORAGE = "Microsoft.ManagedIdentity", "Microsoft.Network.NRP", "Microsoft.Storage"

RESOURCES = {
    "authorization:RoleAssignment": ("Microsoft.Authorization", "roleAssignments", "roleAssignmentName"),
    "compute:CapacityReservation": (COMPUTE, "capacityReservationGroups_capacityReservations", "capacityReservationName"),
    "compute:CapacityReservationGroup": (COMPUTE, "capacityReservationGroups", "capacityReservationGroupName"),
    "compute:VirtualMachine": (COMPUTE, "virtualMachines", "vmName"),
    "compute:VirtualMachineRunCommandByVirtualMachine": (COMPUTE, "virtualMachines_runCommands", "runCommandName"),
    "consumption:Budget": ("Microsoft.Consumption", "budgets", "budgetName"),
    "containerregistry:Registry": ("Microsoft.ContainerRegistry", "registries", "registryName"),
    "containerservice:AgentPool": (AKS, "managedClusters_agentPools", "agentPoolName"),
    "containerservice:MaintenanceConfiguration": (AKS, "managedClusters_maintenanceConfigurations", "configName"),
    "containerservice:ManagedCluster": (AKS, "managedClusters", "resourceName"),
    "devtestlab:GlobalSchedule": ("Microsoft.DevTestLab", "schedules", "name"),
    "managedidentity:FederatedIdentityCredential": (
        IDENTITY,
        "userAssignedIdentities_federatedIdentityCredentials",
        "federatedIdentityCredentialResourceName",
    ),
    "managedidentity:UserAssignedIdentity": (IDENTITY, "userAssignedIdentities", "resourceName"),
    "monitor:AzureMonitorWorkspace": ("Microsoft.Monitor", "accounts", "azureMonitorWorkspaceName"),
    "monitor:DataCollectionEndpoint": (INSIGHTS, "dataCollectionEndpoints", "dataCollectionEndpointName"),
    "monitor:DataCollectionRule": (INSIGHTS, "dataCollectionRules", "dataCollectionRuleName"),
    "monitor:DataCollectionRuleAssociation": (INSIGHTS, "dataCollectionRuleAssociations", "associationName"),
    "network:BastionHost": (NETWORK, "bastionHosts", "bastionHostName"),
    "network:NatGateway": (NETWORK, "natGateways", "natGatewayName"),
    "network:NetworkInterface": (NETWORK, "networkInterfaces", "networkInterfaceName"),
    "network:NetworkSecurityGroup": (NETWORK, "networkSecurityGroups", "networkSecurityGroupName"),
    "network:PrivateEndpoint": (NETWORK, "privateEndpoints", "privateEndpointName"),
    "network:PublicIPAddress": (NETWORK, "publicIPAddresses", "publicIpAddressName"),
    "network:PublicIPPrefix": (NETWORK, "publicIPPrefixes", "publicIpPrefixName"),
    "network:SecurityRule": (NETWORK, "networkSecurityGroups_securityRules", "securityRuleName"),
    "network:Subnet": (NETWORK, "virtualNetworks_subnets", "subnetName"),
    "network:VirtualNetwork": (NETWORK, "virtualNetworks", "virtualNetworkName"),
    "resources:ResourceGroup": ("Microsoft.Resources", "resourceGroups", "resourceGroupName"),
    "storage:BlobContainer": (STORAGE, "storageAccounts_blobServices_containers", "containerName"),
    "storage:BlobServiceProperties": (STORAGE, "storageAccounts_blobServices", "blobServicesName"),
    "storage:FileServiceProperties": (STORAGE, "storageAccounts_fileServices", "fileServicesName"),
    "storage:FileShare": (STORAGE, "storageAccounts_fileServices_shares", "shareName"),
    "storage:ManagementPolicy": (STORAGE, "storageAccounts_managementPolicies", "managementPolicyName"),
    "storage:StorageAccount": (STORAGE, "storageAccounts", "accountName"),
}
"""Class of azure-native -> namespace (its file), ARM type (its definition there), and the input that becomes the ARM name."""

INPUT_TYPES_ONLY = (
    "applicationinsights:Component",
    "compute:Disk",
    "compute:VirtualMachineExtension",
    "operationalinsights:Workspace",
)
"""Checked by the package's input types alone: shared/arm has no schema of the first two and the last, and none that fits every extension."""

RENAMED = {
    "enableHttpsTrafficOnly": "supportsHttpsTrafficOnly",
    "enableNfsV3": "isNfsV3Enabled",
    "encryptionFederatedIdentityClientId": "federatedIdentityClientId",
    "encryptionIdentity": "identity",
    "encryptionUserAssignedIdentity": "userAssignedIdentity",
    "iPAddressOrRange": "value",
    "keyName": "keyname",
    "keyVaultProperties": "keyvaultproperties",
    "keyVaultUri": "keyvaulturi",
    "keyVersion": "keyversion",
    "networkRuleSet": "networkAcls",
    "virtualNetworkResourceId": "id",
}
"""azure-native's key -> ARM's, where ARM has none of the first name; a fault below one says ARM's (The autoscaler's: words-with-dashes)"""

STREAMS = {"type": "array", "items": {"type": "string", "pattern": "^(Microsoft|Custom)-"}}
CORRECTED = {
    ("BudgetProperties", "amount"): {"type": "number"},
    ("Notification", "threshold"): {"type": "number", "minimum": 0, "maximum": 1000},
    ("DataFlow", "streams"): STREAMS,
    ("ExtensionDataSource", "streams"): STREAMS,
    ("PerfCounterDataSource", "streams"): STREAMS,
    ("HardwareProfile", "vmSize"): {"type": "string", "pattern": "^(Basic|Standard)_"},
    ("NetworkRuleSet", "bypass"): {
        "type": "string",
        "pattern": "^(None|(Logging|Metrics|AzureServices)(, ?(Logging|Metrics|AzureServices))*)$",
    },
}
"""Where Azure takes more than its file says: money with cents, streams of newer agents, VM sizes since 2018 (the list is
"deprecated", it says), more than one service. By definition and key."""


def problems(type_token: str, inputs: dict[str, Any]) -> list[str]:
    """Return one line per fault of these inputs (path, value, what is allowed); none where Azure would take the body."""
    kind, literals = type_token.removeprefix("azure-native:"), _literals(inputs)
    if kind not in RESOURCES and kind not in INPUT_TYPES_ONLY:
        return [f"no schema for {type_token}: add it to RESOURCES, and its file to shared/arm"]
    if kind in RESOURCES and not schema_file(kind).is_file():
        return [f"no schema for {type_token}, API version {api_version(kind)}: add {schema_file(kind).name} to shared/arm"]
    arm = _arm_faults(kind, literals) if kind in RESOURCES else {}
    found = arm | _faults(_inputs_validator(kind), literals)
    return [path + text for path, text in sorted(found.items())]


def _literals(value: Any) -> Any:
    """Return a registered value as JSON: secrets opened, no key that is null, whole numbers as int (Pulumi sends floats)."""
    if rpc.is_rpc_secret(value):
        return _literals(rpc.unwrap_rpc_secret(value))
    if isinstance(value, dict):
        return {key: _literals(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_literals(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _faults(validator: Draft4Validator, body: dict[str, Any]) -> dict[str, str]:
    """Return path -> fault; what only Azure will know (an output of a preview) has none."""
    known = (error for error in validator.iter_errors(body) if not isinstance(error.instance, Unknown))
    return {path: text for error in known for path, text in _explained(error)}


def _explained(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield the paths, as azure-native writes them (without `properties`), and what is wrong there."""
    at, allowed = [part for part in error.absolute_path if part != "properties"], error.validator_value
    if error.validator == "required":
        yield from ((_dotted([*at, key]), " is missing; it is required") for key in allowed if key not in error.instance)
    elif error.validator == "additionalProperties":
        listed = error.schema["properties"]
        for key in error.instance.keys() - listed.keys():
            yield _dotted([*at, key]), f" = {error.instance[key]!r:.80}: unknown key; allowed: {', '.join(sorted(listed))}"
    elif error.validator == "enum":
        yield _dotted(at), f" = {error.instance!r:.80}: allowed: {', '.join(map(str, allowed))}"
    else:
        yield _dotted(at), f" = {error.instance!r:.80}: must keep to {error.validator} {allowed!r:.200}"


def _dotted(parts: Iterable[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


# What azure-native takes: the package's input types.


def api_version(kind: str) -> str:
    """Return the API version that the installed package sends for this class; its docstring says so."""
    doc = typing.get_overloads(_resource_class(kind).__init__)[0].__doc__
    return re.search(r"Uses Azure REST API version ([\w-]+)", doc)[1]


def _resource_class(kind: str) -> type:
    module, name = kind.split(":")
    return getattr(import_module(f"pulumi_azure_native.{module}"), name)


@cache
def _inputs_validator(kind: str) -> Draft4Validator:
    """Return a validator of this class's inputs, strict at every depth."""
    resource = _resource_class(kind)
    module = import_module(resource.__module__)
    args = getattr(module, f"{resource.__name__}InitArgs", None) or getattr(module, f"{resource.__name__}Args")
    definitions: dict[str, Any] = {}
    root = _type_schema(args, definitions)["$ref"].rpartition("/")[2]
    return Draft4Validator({**definitions[root], "definitions": definitions})


def _type_schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a type hint of the package; input types become definitions, as they may hold themselves."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if origin is typing.Union:
        return _union_schema(parts, definitions)
    if origin is Sequence:
        return {"type": "array", "items": _type_schema(parts[0], definitions)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _type_schema(parts[1], definitions)}
    if issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if _types.is_input_type(hint):
        return _object_schema(hint, definitions)
    return {"type": {bool: "boolean", float: "number", int: "integer", str: "string"}[hint]}


def _union_schema(parts: tuple[Any, ...], definitions: dict[str, Any]) -> dict[str, Any]:
    """Drop null and the wrappers of Pulumi; `str` beside an enum says that Azure may know more values."""
    wrapped = ("collections.abc.Awaitable", "pulumi.output.Output")
    plain = [part for part in parts if part is not type(None) and not str(part).startswith(wrapped)]
    if str in plain:
        plain = [part for part in plain if not (inspect.isclass(part) and issubclass(part, enum.Enum))]
    schemas = [_type_schema(part, definitions) for part in plain]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _object_schema(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    key = f"{cls.__module__}.{cls.__qualname__}"
    if key not in definitions:
        definitions[key] = {"type": "object", "additionalProperties": False}
        names, hints = _types.input_type_py_to_pulumi_names(cls), _types.input_type_types(cls)
        parameters = inspect.signature(cls.__init__).parameters
        required = [name for python, name in names.items() if parameters[python].default is inspect.Parameter.empty]
        definitions[key] |= {"required": required} if required else {}
        definitions[key]["properties"] = {name: _type_schema(hints[name], definitions) for name in names.values()}
    return {"$ref": f"#/definitions/{key}"}


# What Azure takes: the ARM body.


def schema_file(kind: str) -> Path:
    """Return where Azure's schema of this class is, at the API version that the package sends."""
    return SCHEMAS / f"{api_version(kind)}_{RESOURCES[kind][0]}.json"


def path_parameters(kind: str) -> set[str]:
    """Return the inputs that make the resource's address: what the package takes and the ARM body has no place for."""
    places = _places(_definition(kind), _definitions(kind))
    return {key for key in _inputs_validator(kind).schema["properties"] if _arm_key(key, places) not in places}


def _arm_faults(kind: str, literals: dict[str, Any]) -> dict[str, str]:
    """Return path -> fault of the body that azure-native would send."""
    (_, _, name), definition = RESOURCES[kind], _definition(kind)
    own = {key: value for key, value in literals.items() if key not in path_parameters(kind)}
    body = {"properties": {}} if "properties" in definition["required"] else {}
    body |= _rebuilt(own, definition, _definitions(kind))
    body |= {key: definition["properties"][key]["enum"][0] for key in ("type", "apiVersion")}
    # Some schemas know a child by its whole name. A name that isn't given is azure-native's to make up.
    parent = "parent/" if "/" in definition["properties"]["name"].get("pattern", "") else ""
    body["name"] = f"{parent}{literals[name]}" if name in literals else f"{parent}default"
    found = _faults(Draft4Validator({**definition, "definitions": _definitions(kind)}), body)
    return {name if path == "name" else path: text for path, text in found.items()}


def _rebuilt(value: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """Return an azure-native value as ARM nests and names it; a key that ARM doesn't know is kept, to be reported."""
    schema = _followed(schema, definitions)
    if isinstance(value, list) and schema.get("type") == "object":  # Identities: a list of IDs to azure-native, keys to ARM.
        return {str(item): {} for item in value}
    if isinstance(value, list):
        return [_rebuilt(item, schema.get("items", {}), definitions) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(schema.get("additionalProperties"), dict):
        return {key: _rebuilt(item, schema["additionalProperties"], definitions) for key, item in value.items()}
    return _rebuilt_object(value, _places(schema, definitions), definitions)


def _rebuilt_object(value: dict[str, Any], places: dict[str, tuple[bool, Any]], definitions: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    has_inner = any(inner for inner, _ in places.values())
    for key, item in value.items():
        lifted, schema = places.get(_arm_key(key, places), (has_inner, {}))
        if key != "properties":  # azure-native takes none; its own layer says so.
            target = body.setdefault("properties", {}) if lifted else body
            target[_arm_key(key, places)] = _rebuilt(item, schema, definitions)
    return body


def _places(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, tuple[bool, Any]]:
    """Return ARM key -> (whether it belongs inside `properties`, its schema)."""
    own = schema.get("properties", {})
    inner = _followed(own.get("properties", {}), definitions).get("properties", {})
    return {key: (False, item) for key, item in own.items()} | {key: (True, item) for key, item in inner.items()}


def _arm_key(key: str, places: dict[str, Any]) -> str:
    """Return ARM's name of a key: the same, a renamed one, or words-with-dashes; the same where ARM has none of them."""
    dashed = re.sub("([A-Z])", r"-\1", key).lower()
    return next((name for name in (key, RENAMED.get(key), dashed) if name in places), key)


def _followed(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def _definition(kind: str) -> dict[str, Any]:
    """Return the schema of the resource, for the first scope that has one (resource group, else subscription)."""
    sections = (section for name, section in _document(schema_file(kind)).items() if name.endswith("resourceDefinitions"))
    return next(section[RESOURCES[kind][1]] for section in sections if RESOURCES[kind][1] in section)


def _definitions(kind: str) -> dict[str, Any]:
    return _document(schema_file(kind))["definitions"]


@cache
def _document(path: Path) -> dict[str, Any]:
    """Return a schema file, strict, without template expressions, and corrected."""
    document = _strict(json.loads(path.read_text()))
    for (owner, key), schema in CORRECTED.items():
        properties = document["definitions"].get(owner, {}).get("properties", {})
        properties |= {key: schema} if key in properties else {}
    return document


def _strict(schema: Any) -> Any:
    """Return the schema with each "this, or an expression" replaced by this, and no keys but those that it lists."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _strict(item) for key, item in schema.items()}
    if schema.get("type") == "object" and schema.get("properties"):
        schema.setdefault("additionalProperties", False)
    real = [choice for choice in schema.get("oneOf", ()) if not choice.get("$ref", "").endswith("/expression")]
    if len(real) == 1:
        del schema["oneOf"]
        schema |= real[0]
    return schema
