"""Which size of Azure VM this is, and where: what a run is paid by.

    azure_vm()    # {"vm_size": "Standard_NC40ads_H100_v5", "region": "eastus"}; None where nobody says

A stack's jobs are told by their environment. Elsewhere on Azure the machine itself says it, at its metadata endpoint; no other machine
is asked for one.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import httpx

from ncdemo.spec.job import NCDEMO_REGION, NCDEMO_VM_SIZE

METADATA = "http://169.254.169.254/metadata/instance/compute?api-version=2021-02-01"
"""https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service"""
ASSET_TAG = Path("/sys/class/dmi/id/chassis_asset_tag")
AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
"""The chassis of every VM of Azure, as cloud-init knows it by (its Azure data source)."""
TIMEOUT_S = 2.0
Vm = dict[str, str | None]


def azure_vm(env: Mapping[str, str] = os.environ) -> Vm:
    """Return vm_size and region, each None where it isn't known. Never raises for an endpoint that doesn't answer."""
    if env.get(NCDEMO_VM_SIZE):
        return {"vm_size": env[NCDEMO_VM_SIZE], "region": env.get(NCDEMO_REGION) or None}
    return _asked() if _is_azure() else {"vm_size": None, "region": None}


def _is_azure() -> bool:
    try:
        return ASSET_TAG.read_text().strip() == AZURE_TAG
    except OSError:
        return False


def _asked() -> Vm:
    try:
        # trust_env: the endpoint is on the machine itself, and no proxy may be asked for it.
        with httpx.Client(headers={"Metadata": "true"}, timeout=TIMEOUT_S, trust_env=False) as client:
            found = client.get(METADATA).raise_for_status().json()
        return {"vm_size": found.get("vmSize") or None, "region": found.get("location") or None}
    except (httpx.HTTPError, ValueError, AttributeError):
        return {"vm_size": None, "region": None}
