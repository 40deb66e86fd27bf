"""What a VM does at its first boot, and what it carries for jobs: local disk, runner, idle watch. Jobs themselves come later.

Written as cloud-init. Errors in it don't fail the VM's provisioning, so vm_files/first-boot ends by writing /var/lib/ncdemo/ready
when all went well, and the first thing that a job's run command does is to wait for that file and to fail without it.
"""

from importlib.resources import files

import yaml

from ncdemo.spec.job import FILES_DIR
from ncdemo.spec.job_labels import VM_STATE

FOLDER = "/usr/local/lib/ncdemo"
READY = f"{VM_STATE}/ready"
JOBS = "/etc/ncdemo/jobs"
CUSTOM_DATA_BYTES = 65535
"""Azure takes at most so many, before base64."""


def cloud_init(*, idle_minutes: int, client_id: str, files_host: str | None, files_share: str | None, setup: str) -> str:
    """Return the #cloud-config text of a VM."""
    settings = {"NCDEMO_IDLE_MINUTES": str(idle_minutes), "NCDEMO_CLIENT_ID": client_id}
    if files_host:
        settings |= {"NCDEMO_FILES": f"{files_host}:/{files_host.split('.')[0]}/{files_share}", "NCDEMO_FILES_DIR": FILES_DIR}
    scripts = {name: _read(name) for name in SCRIPTS} | ({"setup": _script(setup)} if setup else {})
    config = {
        "write_files": [
            {"path": "/etc/ncdemo/vm.env", "content": "".join(f"{key}={value}\n" for key, value in settings.items())},
            *({"path": f"{FOLDER}/{name}", "permissions": "0755", "content": text} for name, text in scripts.items()),
            *({"path": f"/etc/systemd/system/{name}", "content": _read(name)} for name in UNITS),
        ],
        # One step alone: cloud-init would go on with a second one after the first has failed.
        "runcmd": [[f"{FOLDER}/first-boot"]],
    }
    return "#cloud-config\n" + yaml.dump(config, Dumper=_Blocks, sort_keys=False, width=1000)


SCRIPTS = ("first-boot", "scratch", "registry-login", "run-job", "idle")
UNITS = ("ncdemo-scratch.service", "ncdemo-job@.service", "ncdemo-idle.service", "ncdemo-idle.timer")


class _Blocks(yaml.SafeDumper):
    """Writes texts of several lines as they are: quoted, they would take twice the bytes."""


_Blocks.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
)


def _script(text: str) -> str:
    return text if text.startswith("#!") else f"#!/bin/sh\nset -eu\n{text.rstrip()}\n"


def _read(name: str) -> str:
    return files("ncdemo.infra").joinpath("vm_files", name).read_text(encoding="utf-8")
