"""What a VM does at its first boot, and what it carries for jobs: local disk, runner, idle watch. Jobs themselves come later.

Written as cloud-init. Errors in it don't fail the VM's provisioning, so the last step alone writes /var/lib/ncdemo/ready, and
the first thing that a job's run command does is to wait for that file and to fail without it.
"""

from importlib.resources import files

import yaml

from ncdemo.spec.job import FILES_DIR

FOLDER = "/usr/local/lib/ncdemo"
STATE = "/var/lib/ncdemo"
READY = f"{STATE}/ready"
JOBS = "/etc/ncdemo/jobs"
CUSTOM_DATA_BYTES = 65535
"""Azure takes at most so many, before base64."""


def cloud_init(*, idle_minutes: int, client_id: str, files_host: str | None, files_share: str | None, setup: str) -> str:
    """Return the #cloud-config text of a VM."""
    settings = {"NCDEMO_IDLE_MINUTES": str(idle_minutes), "NCDEMO_CLIENT_ID": client_id}
    if files_host:
        settings |= {"NCDEMO_FILES": f"{files_host}:/{files_host.split('.')[0]}/{files_share}", "NCDEMO_FILES_DIR": FILES_DIR}
    scripts = {name: _read(name) for name in ("scratch", "registry-login", "run-job", "idle")}
    config = {
        "write_files": [
            {"path": "/etc/ncdemo/vm.env", "content": "".join(f"{key}={value}\n" for key, value in settings.items())},
            *({"path": f"{FOLDER}/{name}", "permissions": "0755", "content": text} for name, text in scripts.items()),
            *({"path": f"/etc/systemd/system/{name}", "content": _read(name)} for name in UNITS),
            *([{"path": f"{FOLDER}/setup", "permissions": "0755", "content": _script(setup)}] if setup else []),
        ],
        "runcmd": [[FOLDER + "/scratch"], *([[FOLDER + "/setup"]] if setup else []), ["sh", "-c", FIRST_BOOT]],
    }
    return "#cloud-config\n" + yaml.safe_dump(config, sort_keys=False, width=1000)


UNITS = ("ncdemo-scratch.service", "ncdemo-job@.service", "ncdemo-idle.service", "ncdemo-idle.timer")
FIRST_BOOT = (
    f"set -e; mkdir -p {STATE} {JOBS}; systemctl daemon-reload; systemctl enable ncdemo-scratch.service; "
    # Ready means: a GPU that answers where there should be one, a disk, and a container runtime.
    f"if [ -e /dev/nvidiactl ] || lspci | grep -qi nvidia; then nvidia-smi >/dev/null; fi; docker info >/dev/null; "
    f"mountpoint -q /mnt/ncdemo || test -d /mnt/ncdemo; touch {READY}; systemctl enable --now ncdemo-idle.timer"
)


def _script(text: str) -> str:
    return text if text.startswith("#!") else f"#!/bin/sh\nset -eu\n{text.rstrip()}\n"


def _read(name: str) -> str:
    return files("ncdemo.infra").joinpath("vm_files", name).read_text(encoding="utf-8")
