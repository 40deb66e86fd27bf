"""Jobs on VMs: a run command writes the job's files, enables its systemd unit, and returns; the unit survives reboots.

The run command is the resource: its name ends in the job's hash, so an unchanged job is never sent again. Its own output goes to
Blob; the job's log is in its run directory, which the workload copies to Blob itself.
"""

import base64
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_azure_native import compute

from ncdemo.infra.cloud_init import JOBS, READY
from ncdemo.infra.component import Component, Place
from ncdemo.infra.job_plan import environment, job_id, results_environment, run_file, share
from ncdemo.infra.vm import Vm
from ncdemo.spec.job import APPLICATIONINSIGHTS_CONNECTION_STRING, NCDEMO_NODE_RANK, job_command
from ncdemo.spec.job_labels import job_unit
from ncdemo.spec.run_folder import METRICS, RUN_COMMANDS_FOLDER
from ncdemo.spec.services import Images
from ncdemo.spec.stack_file import JobRun

START_TIMEOUT_S = 3600
"""Waiting for the first boot included."""
TOKEN_PARAMETER = "HF_TOKEN"
HASH_DIGITS = 10
"""Of job_id."""


@dataclass(frozen=True)
class VmJobArgs:
    place: Place
    run: JobRun
    images: Images
    image: pulumi.Input[str]
    vms: tuple[Vm, ...]
    """Node by node."""
    order: int
    """Of the job in the stack: the earlier one gets a VM first."""
    account: pulumi.Input[str]
    identity_client_id: pulumi.Input[str]
    hf_token: pulumi.Input[str] | None = None
    connection: pulumi.Input[str] | None = None
    """Connection string of the Application Insights resource."""

    @property
    def secrets(self) -> list[compute.RunCommandInputParameterArgs]:
        """What the run command's script finds in its environment, and nobody reads in Azure."""
        values = {TOKEN_PARAMETER: self.hf_token, APPLICATIONINSIGHTS_CONNECTION_STRING: self.connection}
        return [compute.RunCommandInputParameterArgs(name=name, value=value) for name, value in values.items() if value is not None]


class VmJob(Component):
    """One run command per node."""

    KIND = "job"
    job_name: str

    def __init__(self, name: str, args: VmJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        identity = job_id(args.run, args.images)
        super().__init__(name, opts, key=args.run.job.name)
        writer = compute.RunCommandManagedIdentityArgs(client_id=args.identity_client_id)
        for rank, vm in enumerate(args.vms):
            log = pulumi.Output.concat(
                "https://", args.account, f".blob.core.windows.net/{METRICS}/{RUN_COMMANDS_FOLDER}/{identity}-{rank}"
            )
            script = pulumi.Output.all(args.image, args.account).apply(_starting(args, identity, rank))
            self.make(
                compute.VirtualMachineRunCommandByVirtualMachine,
                f"start-{rank}",
                run_command_name=f"{identity}-{rank}",
                vm_name=vm.name,
                resource_group_name=args.place.resource_group,
                location=args.place.location,
                source=compute.VirtualMachineRunCommandScriptSourceArgs(script=script),
                # Azure keeps a protected parameter encrypted and never shows it again.
                protected_parameters=args.secrets or None,
                async_execution=False,
                timeout_in_seconds=START_TIMEOUT_S,
                treat_failure_as_deployment_failure=True,
                output_blob_uri=pulumi.Output.concat(log, ".out"),
                error_blob_uri=pulumi.Output.concat(log, ".err"),
                output_blob_managed_identity=writer,
                error_blob_managed_identity=writer,
                tags=args.place.tags,
                # Sent once: a release of ncdemo that words the script otherwise doesn't start the job again.
                options=pulumi.ResourceOptions(ignore_changes=["source", "protectedParameters", "timeoutInSeconds"]),
            )
        self.done(job_name=identity)


def _starting(args: VmJobArgs, identity: str, rank: int) -> Callable[[Any], str]:
    return lambda both: start_script(args, identity, rank, *both)


def start_script(args: VmJobArgs, identity: str, rank: int, image: str, account: str) -> str:
    """Return the run command of one node."""
    files = job_files(args, identity, rank, image, account)
    folder, job = f"{JOBS}/{identity}", args.run.job.name
    wait = [
        "#!/bin/bash",
        "set -euo pipefail",
        "umask 022",
        "# cloud-init's errors don't fail a VM: only this file proves that the machine can run jobs.",
        "for _ in $(seq 360); do",
        f"  [ -e {READY} ] && break",
        # `cloud-init status` may say error while the first boot still goes on.
        '  case "$(systemctl is-active cloud-final.service || true)" in active | failed) break ;; esac',
        "  sleep 5",
        "done",
        f"if [ ! -e {READY} ]; then",
        '  echo "this VM is not ready for jobs: its first boot failed, or took longer than 30 min. It ended with:" >&2',
        "  tail -n 20 /var/log/cloud-init-output.log >&2",
        "  exit 1",
        "fi",
        f"mkdir -p {folder}",
    ]
    write = [f"printf %s {base64.b64encode(text.encode()).decode()} | base64 -d >{folder}/{name}" for name, text in sorted(files.items())]
    token = [
        f'if [ -n "${{{TOKEN_PARAMETER}:-}}" ]; then',
        f'  (umask 077 && printf %s "${TOKEN_PARAMETER}" >/etc/ncdemo/hf-token.new)',
        "  mv /etc/ncdemo/hf-token.new /etc/ncdemo/hf-token",
        "fi",
    ]
    # docker alone reads the file, as root; the container, which sees the folder, is somebody else.
    connection = [
        f'if [ -n "${{{APPLICATIONINSIGHTS_CONNECTION_STRING}:-}}" ]; then',
        f"  chmod 600 {folder}/container.env",
        f'  printf "%s\\n" "{APPLICATIONINSIGHTS_CONNECTION_STRING}=${APPLICATIONINSIGHTS_CONNECTION_STRING}" >>{folder}/container.env',
        "fi",
    ]
    unit = job_unit(identity)
    limits = f"[Unit]\nStartLimitBurst={args.run.job.retries + 1}\n"
    start = [
        f"mkdir -p /etc/systemd/system/{unit}.d",
        f"printf %s {shlex.quote(limits)} >/etc/systemd/system/{unit}.d/limits.conf",
        "systemctl daemon-reload",
        "# Another version of this job makes room: it is stopped, and not started at the next boot. Ten digits, and nothing after",
        "# them: a job whose longer name begins with this one stays.",
        f"for old in {JOBS}/{job}-{'[0-9a-f]' * HASH_DIGITS}; do",
        f'  [ "${{old##*/}}" = {identity} ] || systemctl disable --now "ncdemo-job@${{old##*/}}.service"',
        "done",
    ]
    # Suspended: everything is there, and `systemctl enable --now` starts it. What failed before counts no more.
    begin = [f"systemctl reset-failed {unit} 2>/dev/null || true", f"systemctl enable {unit}", f"systemctl start --no-block {unit}"]
    if not args.run.job.suspend:
        start += begin
    return "\n".join([*wait, *write, *token, *connection, *start]) + "\n"


def job_files(args: VmJobArgs, identity: str, rank: int, image: str, account: str) -> dict[str, str]:
    """Return what lies in the job's folder on a node: what bash and docker read to run it, and the spec that the container reads."""
    run, whole, server = args.run, share(args.run), args.run.job.server
    env = environment(run, identity, args.vms[0].host, args.place.location) | results_environment(account) | {NCDEMO_NODE_RANK: str(rank)}
    settings = {
        "ORDER": str(args.order),
        "IMAGE": image,
        "GPUS": str(run.gpus),
        "SHM_GIB": str(whole.shm_gib),
        "DEADLINE_S": str(run.deadline_s),
    }
    commands = {"COMMAND": job_command()}
    if server:
        settings |= {
            "SERVER_IMAGE": server.image,
            "SERVER_PORT": str(server.port),
            "SERVER_HEALTH": server.health_path,
            "SERVER_START_S": str(server.start_minutes * 60),
        }
        commands["SERVER_COMMAND"] = server.command
    return {
        "job.env": "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items())
        + "".join(f"{key}=({shlex.join(words)})\n" for key, words in commands.items()),
        "container.env": "".join(f"{key}={value}\n" for key, value in env.items()),
        "run.yaml": run_file(run),
    }
