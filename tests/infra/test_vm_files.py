"""A VM's scripts do what they say: each runs as a real process, in copies that only see a folder, among stand-ins for the machine.

The stand-ins (FAKE below) are one program under the names of docker, systemctl, lsblk, ...: each notes its call and keeps up
appearances. Their containers are processes that outlive the client that started them, as dockerd's do. `sleep` is ten times faster.
"""

import base64
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.infra import vm_jobs
from ncdemo.infra.cloud_init import CUSTOM_DATA_BYTES, cloud_init
from ncdemo.infra.program import check
from ncdemo.infra.render import Rendered, render
from ncdemo.infra.stand_in import CONNECTION_STAND_IN
from ncdemo.spec.base import SpecError
from ncdemo.spec.job import FILES_DIR, SPEC_FILE, job_command, load_run
from ncdemo.spec.stack_file import Stack, load_stack, stack_of

ROOT = Path(__file__).resolve().parents[2]
VM_FILES = ROOT / "ncdemo" / "infra" / "vm_files"
SCRIPTS = sorted(path.name for path in VM_FILES.iterdir() if not path.suffix)
UNITS = sorted(path.name for path in VM_FILES.iterdir() if path.suffix)
EXAMPLES = ("vm-dev", "vm-full")
TOKEN = "hf_this-is-secret"
CLIENT_ID = "11111111-2222-3333-4444-555555555555"
VM_ID = "/subscriptions/0/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-0"
IMAGE = "registry.example/ncdemo:1"
PATHS = re.compile(
    r"(?<![\w:}+/.])(/etc/ncdemo|/mnt/ncdemo|/var/lib/ncdemo|/var/log|/run|/usr/local/lib/ncdemo|/etc/systemd|/usr/bin/docker|/files)"
    r"(?=[/:\s\"\]]|$)",
    re.MULTILINE,
)
"""Of the machine. What a container sees (after a colon), and what a name begins with, isn't meant."""
OUTSIDE = re.compile(r"""^(?!\s*#).*(?<![\w:}+.])/(?:etc|mnt|var|run|usr/local|files)\b.*$""", re.MULTILINE)
"""What must not be left in a script."""
CONFIG: dict[str, Any] = {
    "target": "vm",
    "pools": [{"name": "h100x2", "vm_size": "Standard_NC80adis_H100_v5", "max_count": 2}],
    "storage": {"files_gib": 100},
    "vm": {"setup": "echo made by setup >>SETUP_NOTE"},
    "hf_token": {"secure": "v1:encrypted"},
    "monitoring": {"application_insights": True},
    "jobs": [
        {"name": "tune", "config": "workloads/configs/training/demo.yaml", "gpus": 1, "retries": 2},
        {"name": "tune-2x2", "config": "workloads/configs/training/lora.yaml", "nodes": 2},
        {"name": "later", "config": "workloads/configs/training/lora.yaml", "suspend": True},
        {
            "name": "served",
            "config": "workloads/configs/inference/endpoint.yaml",
            "set": {"url": "http://127.0.0.1:9000"},
            "server": {"image": "engine.example/server:1.0", "command": ["serve", "two words", "a 'quote'\nand a line"], "port": 9000},
        },
    ],
}

FAKE = """#!PYTHON -SE
import json, os, signal, subprocess, sys, time
from pathlib import Path

ROOT = Path("WORLD")
name, args = Path(sys.argv[0]).name, sys.argv[1:]


def world():
    return json.loads((ROOT / "world.json").read_text())


def note(file, **what):
    with (ROOT / file).open("a") as out:
        out.write(json.dumps(what) + "\\n")


def remember(key, value):
    (ROOT / key).write_text(json.dumps(value))


def memory(key, default):
    path = ROOT / key
    return json.loads(path.read_text()) if path.exists() else default


def after(flag):
    return args[args.index(flag) + 1]


def container(which):
    path = ROOT / "containers" / which
    return json.loads(path.read_text()) if path.exists() else None


def alive(pid):
    # One that ended is a zombie where nobody waits for it.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def be_container():
    which, seconds, code, on_stop, remove = args[1], float(args[2]), int(args[3]), args[4], args[5] == "1"

    def end(code):
        note("events", what="end", name=which, code=code, at=time.time())
        if remove:
            (ROOT / "containers" / which).unlink(missing_ok=True)
        os._exit(code)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if on_stop == "ignore" else lambda *_: end(int(on_stop)))
    note("events", what="start", name=which, at=time.time())
    time.sleep(seconds)
    end(code)


def run_container():
    which = after("--name")
    server = which.endswith("-server")
    how = world()["server" if server else "job"]
    if container(which):
        sys.exit(125)
    record = {"labels": [args[i + 1] for i, a in enumerate(args) if a == "--label"]}
    command = [sys.argv[0], "be-container", which, *map(str, how), "1" if "--rm" in args else "0"]
    made = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (ROOT / "containers" / which).write_text(json.dumps({**record, "pid": made.pid}))
    code = 0 if "-d" in args else made.wait()
    sys.exit(code if code >= 0 else 128 - code)


def docker():
    verb = args[0]
    if verb == "be-container":
        be_container()
    if verb == "run":
        run_container()
    if verb == "pull":
        time.sleep(world()["pull_s"])
        remember("images", [*memory("images", []), args[-1]])
    if verb == "image":
        sys.exit(args[-1] not in memory("images", []))
    if verb == "ps":
        label = after("--filter").removeprefix("label=")
        print(*(p.name for p in (ROOT / "containers").iterdir() if label in container(p.name)["labels"]), sep="\\n")
    if verb == "inspect":
        found = container(args[-1])
        if found is None:
            sys.exit("no such container")
        if "-f" in args:
            print("true" if alive(found["pid"]) else "false")
    if verb == "logs":
        print("first\\nlast words of the server")
    if verb == "stop":
        found = container(args[-1])
        if found is None:
            sys.exit("no such container")
        kill(found["pid"], signal.SIGTERM)
        until = time.time() + float(after("-t")) / 10
        while alive(found["pid"]) and time.time() < until:
            time.sleep(0.02)
        kill(found["pid"], signal.SIGKILL)
    if verb == "rm":
        for which in args[2:]:
            if container(which):
                kill(container(which)["pid"], signal.SIGKILL)
                (ROOT / "containers" / which).unlink(missing_ok=True)
    sys.exit(verb in world()["docker_fails"])


def curl(stdin):
    url = next(a for a in args if a.startswith("http"))
    if "scheduledevents" in url:
        print(json.dumps({"Events": [{"EventType": e, "Resources": ["vm-0"]} for e in world()["events"]]}, separators=(",", ":")))
    elif "/metadata/identity/" in url:
        print(json.dumps({"access_token": "arm-token"}))
    elif "/metadata/instance/" in url:
        print(json.dumps({"resourceId": "VM_ID"}))
    elif "/oauth2/exchange" in url:
        print(json.dumps({"refresh_token": "acr-token"}))
    elif "127.0.0.1" in url:
        asked = memory("health", 0) + 1
        remember("health", asked)
        sys.exit(0 if world()["healthy_after"] and asked > world()["healthy_after"] else 22)


def systemctl():
    if args[0] == "list-units":
        print(world()["first_boot" if "cloud-final.service" in args else "jobs"], end="")
    if args[0] == "is-active":
        state = world()["cloud_final"]
        print(state)
        sys.exit(0 if state == "active" else 3)
    sys.exit(args[0] in world()["systemctl_fails"])


def lsblk():
    disks = memory("disks", {})
    if args[-1].startswith("/dev/"):
        print(args[-1].removeprefix("/dev/"), *disks[args[-1]]["children"], sep="\\n")
    else:
        print(*(f"{disk} disk" for disk in disks), "/dev/loop0 loop", sep="\\n")


def blkid():
    disks = {**memory("disks", {}), **memory("arrays", {})}
    if args[0] == "-L":
        found = [disk for disk, has in disks.items() if has["label"] == args[1]]
        print(*found[:1])
        sys.exit(0 if found else 2)
    has = disks[args[-1]]
    sys.exit(0 if has["children"] or has["label"] is not None else 2)


def mkfs_ext4():
    if world()["mkfs_fails"]:
        sys.exit("mkfs: no")
    for kind in ("disks", "arrays"):
        known = memory(kind, {})
        if args[-1] in known:
            known[args[-1]]["label"] = after("-L")
            remember(kind, known)


def mdadm():
    disks = memory("disks", {})
    for member in [a for a in args if a.startswith("/dev/nvme")]:
        disks[member]["children"] = ["md127"]
    remember("disks", disks)
    remember("arrays", {args[args.index("--create") + 1]: {"children": [], "label": None}})


def mount():
    remember("mounts", {**memory("mounts", {}), args[-1]: args[-2]})


if name == "sleep":
    time.sleep(float(args[0]) / world()["sleep_faster"])
    sys.exit(0)
stdin = sys.stdin.read() if "-" in "".join(a[-1] for a in args if a[-2:] == "@-") or "--password-stdin" in args else None
if "be-container" not in args:
    note("calls", program=name, args=args, stdin=stdin, token=os.environ.get("HF_TOKEN"))
if name == "curl":
    curl(stdin)
elif name == "mountpoint":
    sys.exit(args[-1] not in memory("mounts", {}))
elif name in ("docker", "systemctl", "lsblk", "blkid", "mdadm", "mount"):
    globals()[name]()
elif name == "mkfs.ext4":
    mkfs_ext4()
elif name == "who":
    print(world()["who"], end="")
elif name == "lspci":
    print(world()["lspci"])
elif name == "nvidia-smi":
    sys.exit(world()["nvidia_smi"])
"""
NAMES = (
    "docker",
    "systemctl",
    "curl",
    "lsblk",
    "mkfs.ext4",
    "mount",
    "mountpoint",
    "blkid",
    "mdadm",
    "nvidia-smi",
    "lspci",
    "who",
    "chown",
)
WORLD: dict[str, Any] = {
    "job": [0.3, 0, 75],
    "server": [60, 0, 0],
    "pull_s": 0,
    "events": [],
    "healthy_after": 2,
    "docker_fails": [],
    "systemctl_fails": [],
    "mkfs_fails": False,
    "cloud_final": "activating",
    "jobs": "",
    "first_boot": "",
    "who": "",
    "lspci": "00:02.0 3D controller: NVIDIA Corporation H100",
    "nvidia_smi": 0,
    "sleep_faster": 10,
}


class Machine:
    """A VM that is a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.world_dir, self.started = root, root / "world", list[subprocess.Popen[bytes]]()
        self.bin = root / "bin"
        for folder in ("bin", "world/containers", "run", "etc/ncdemo/jobs", "var/lib/ncdemo", "var/log", "mnt", "usr/bin"):
            (root / folder).mkdir(parents=True)
        fake = FAKE.replace("PYTHON", sys.executable).replace("WORLD", str(self.world_dir)).replace("VM_ID", VM_ID)
        (self.bin / "fake").write_text(fake)
        (self.bin / "fake").chmod(0o755)
        for name in (*NAMES, "sleep"):
            (self.bin / name).symlink_to("fake")
        self.now()
        for name in SCRIPTS:
            self.write(f"/usr/local/lib/ncdemo/{name}", self.inside((VM_FILES / name).read_text()), 0o755)
        self.write("/etc/ncdemo/vm.env", f"NCDEMO_IDLE_MINUTES=15\nNCDEMO_CLIENT_ID={CLIENT_ID}\n")

    def inside(self, text: str) -> str:
        """Return a script that has this folder for the machine's root."""
        made = PATHS.sub(lambda found: f"{self.root}{found[1]}", text)
        left = OUTSIDE.findall(made.replace(str(self.root), "INSIDE"))
        assert not left, f"would touch this machine: {left}"
        return made

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def now(self, **changes: Any) -> None:
        """Say how the world is, where it isn't as usual."""
        part = self.world_dir / "world.part"
        part.write_text(json.dumps(WORLD | changes))
        part.replace(self.world_dir / "world.json")  # a stand-in may be reading it

    def disks(self, **disks: dict[str, Any]) -> None:
        for kind in ("arrays", "mounts"):
            (self.world_dir / kind).unlink(missing_ok=True)
        found = {f"/dev/{name}": {"children": [], "label": None} | has for name, has in disks.items()}
        (self.world_dir / "disks").write_text(json.dumps(found))

    def start(self, *command: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a process whose words go to files: what it leaves behind must not hold them open."""
        environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(self.root), **env}
        with (self.root / "out").open("wb") as out, (self.root / "err").open("wb") as err:
            made = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        self.started.append(made)
        return made

    def run(self, *command: str, **env: str) -> int:
        return self.start(*command, **env).wait(timeout=30)

    def script(self, name: str) -> str:
        return str(self.path(f"/usr/local/lib/ncdemo/{name}"))

    @property
    def said(self) -> str:
        return (self.root / "out").read_text() + (self.root / "err").read_text()

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.world_dir / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls(self, program: str, verb: str = "") -> list[dict[str, Any]]:
        return [c for c in self._lines("calls") if c["program"] == program and (not verb or verb in c["args"][:1])]

    def events(self) -> list[tuple[str, str]]:
        return [(event["what"], event["name"]) for event in self._lines("events")]

    def wait_for(self, *event: str) -> None:
        until = time.monotonic() + 20
        while event not in self.events():
            assert time.monotonic() < until, f"{event} didn't happen: {self.events()}\n{self.said}"
            time.sleep(0.02)

    def containers(self) -> list[str]:
        return sorted(path.name for path in (self.world_dir / "containers").iterdir())

    def close(self) -> None:
        for path in (self.world_dir / "containers").iterdir():
            with suppress(ProcessLookupError):
                os.killpg(json.loads(path.read_text())["pid"], signal.SIGKILL)
        for process in self.started:
            # What it left behind is still in its group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()


@cache
def rendered() -> Rendered:
    return render(stack_of("dev", json.loads(json.dumps(CONFIG)), {}))


def example(name: str) -> Stack:
    return load_stack(ROOT / "stacks" / f"Pulumi.{name}.yaml")


def start_scripts(found: Rendered) -> dict[str, str]:
    """Return <job>-<hash>-<rank> -> its run command."""
    commands = found.of("VirtualMachineRunCommandByVirtualMachine")
    return {one.inputs["runCommandName"]: one.inputs["source"]["script"] for one in commands}


def job_of(name: str) -> tuple[str, str]:
    """Return a job's id and the run command of its first node."""
    return next((key[:-2], text) for key, text in start_scripts(rendered()).items() if re.fullmatch(rf"{name}-[0-9a-f]{{10}}-0", key))


def lines(text: str) -> dict[str, str]:
    """Return the NAME=value lines of an environment file."""
    return dict(line.split("=", 1) for line in text.splitlines())


# The texts.


def test_every_script_and_unit_is_on_the_vm() -> None:
    written = {Path(one["path"]).name for one in yaml.safe_load(next(iter(rendered().cloud_inits().values())))["write_files"]}
    assert written == {*SCRIPTS, *UNITS, "vm.env", "setup"}


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck: apt-get install shellcheck")
def test_scripts_pass_shellcheck(tmp_path: Path) -> None:
    texts = {name: (VM_FILES / name).read_text() for name in SCRIPTS}
    for stack, found in (("dev", rendered()), *((name, render(example(name))) for name in EXAMPLES)):
        texts |= {f"{stack}-{name}": text for name, text in start_scripts(found).items()}
    assert len(texts) == len(SCRIPTS) + 5 + 2 + 3
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(["shellcheck", *sorted(texts)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze: apt-get install systemd")
def test_units_pass_systemd_analyze(vm: Machine) -> None:
    folder = vm.path("/units")
    for name in UNITS:
        vm.write(f"/units/{name.replace('@', '@tune-0123456789')}", vm.inside((VM_FILES / name).read_text()))
    _, script = job_of("tune")
    limits = next(line for line in script.split("printf %s ") if line.startswith("'[Unit]"))
    vm.write("/units/ncdemo-job@tune-0123456789.service.d/limits.conf", shlex.split(limits)[0])
    vm.write("/units/docker.service", "[Service]\nExecStart=/bin/true\n")
    vm.path("/usr/bin/docker").symlink_to("/bin/true")
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name != "docker.service"]
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"}
    command = ["systemd-analyze", "verify", "--man=no", *names]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert len(names) == len(UNITS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_job_is_stopped_by_its_own_script_and_never_again_started_in_vain() -> None:
    unit = (VM_FILES / "ncdemo-job@.service").read_text()
    # systemd tells run-job alone, which needs the container's 28 s; exit codes of those that must not run again.
    assert {"KillMode=mixed", "TimeoutStopSec=45", "Restart=on-failure", "RestartPreventExitStatus=2 124"} <= set(unit.splitlines())
    assert "ConditionPathExists=!/var/lib/ncdemo/ended/%i" in unit
    assert "ExecStopPost=-/usr/bin/docker rm -f %i %i-server" in unit


# cloud-init.


@pytest.mark.skipif(not shutil.which("cloud-init"), reason="needs cloud-init: apt-get install cloud-init")
@pytest.mark.parametrize("stack", ["dev", *EXAMPLES])
def test_cloud_init_accepts_it(stack: str, tmp_path: Path) -> None:
    found = rendered() if stack == "dev" else render(example(stack))
    for text in found.cloud_inits().values():
        (tmp_path / "config").write_text(text)
        done = subprocess.run(["cloud-init", "schema", "--config-file", "config"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Valid" in done.stdout


def first_boot(vm: Machine, setup: str | None = None) -> int:
    """Do what cloud-init does: write the files, then run the steps of runcmd one after the other, whatever they end with."""
    text = next(iter(rendered().cloud_inits().values()))
    if setup is not None:
        text = cloud_init(idle_minutes=15, client_id=CLIENT_ID, files_host=None, files_share=None, setup=setup)
    assert text.startswith("#cloud-config\n")
    config = yaml.safe_load(text)
    assert list(config)[-1] == "runcmd"
    for file in config["write_files"]:
        content = vm.inside(file["content"]).replace("SETUP_NOTE", str(vm.path("/setup-note")))
        vm.write(file["path"], content, int(file.get("permissions", "0644"), 8))
    steps = "\n".join(vm.inside(step if isinstance(step, str) else shlex.join(step)) for step in config["runcmd"])
    return vm.run(str(vm.write("/runcmd", f"#!/bin/sh\n{steps}\n", 0o755)))


def test_first_boot_ends_with_the_ready_file(vm: Machine) -> None:
    vm.disks(nvme0n1={}, nvme1n1={})
    assert first_boot(vm) == 0, vm.said
    assert vm.path("/var/lib/ncdemo/ready").exists()
    assert vm.path("/setup-note").read_text() == "made by setup\n"
    done = [call["args"] for call in vm.calls("systemctl")]
    assert done == [["daemon-reload"], ["enable", "--now", "ncdemo-idle.timer"], ["enable", "ncdemo-scratch.service"]]
    *_, share = [call["args"] for call in vm.calls("mount")]
    account = lines(vm.path("/etc/ncdemo/vm.env").read_text())["NCDEMO_FILES"]
    assert re.fullmatch(r"(nf\w+)\.file\.core\.windows\.net:/\1/files", account)
    assert share[:2] == ["-t", "nfs"]
    assert share[-2:] == [account, str(vm.path(FILES_DIR))]
    assert stat.S_IMODE(vm.path(FILES_DIR).stat().st_mode) == 0o777


FIRST_BOOT_FAILS = {
    "scratch": {"mkfs_fails": True},
    "systemd": {"systemctl_fails": ["daemon-reload"]},
    "gpu": {"nvidia_smi": 9, "sleep_faster": 1000},
    "docker": {"docker_fails": ["info"]},
}


@pytest.mark.parametrize("part", FIRST_BOOT_FAILS)
def test_a_first_boot_that_fails_leaves_no_ready_file(part: str, vm: Machine) -> None:
    vm.now(**FIRST_BOOT_FAILS[part])
    vm.disks(nvme0n1={})
    assert first_boot(vm) != 0
    assert not vm.path("/var/lib/ncdemo/ready").exists()
    # It would be paid for until someone looks.
    assert part == "systemd" or ["enable", "--now", "ncdemo-idle.timer"] in [call["args"] for call in vm.calls("systemctl")]


def test_a_setup_that_fails_leaves_no_ready_file(vm: Machine) -> None:
    assert first_boot(vm, "echo one >>SETUP_NOTE\nexit_code() { return 3; }\nexit_code\necho two >>SETUP_NOTE\n") != 0
    assert vm.path("/setup-note").read_text() == "one\n"
    assert "vm.setup ended with exit code 3" in vm.said
    assert not vm.path("/var/lib/ncdemo/ready").exists()


def test_a_setup_in_another_language_is_left_as_it_is(vm: Machine) -> None:
    assert first_boot(vm, f"#!{sys.executable}\nopen('SETUP_NOTE', 'w').write('python')") == 0, vm.said
    assert vm.path("/setup-note").read_text() == "python"


def test_a_vm_without_gpu_or_setup_gets_ready(vm: Machine) -> None:
    vm.now(lspci="", nvidia_smi=127)
    assert first_boot(vm, "") == 0, vm.said
    assert vm.path("/var/lib/ncdemo/ready").exists()


def test_cloud_init_fits_what_azure_takes() -> None:
    sizes = [len(text.encode()) for text in rendered().cloud_inits().values()]
    assert max(sizes) < CUSTOM_DATA_BYTES / 2
    setup = CONFIG | {"vm": {"setup": "echo setup\n" * 6000}}
    with pytest.raises(SpecError, match=r"vm\.setup: makes cloud-init 1\d\d,\d{3} bytes, and Azure takes 65,535"):
        check(stack_of("dev", json.loads(json.dumps(setup)), {}))


# run-job.


def job(vm: Machine, name: str = "tune", **settings: Any) -> str:
    """Write a job's folder as its run command does, with other settings; return the job's id."""
    identity, script = job_of(name)
    vm.path("/var/lib/ncdemo/ready").touch()
    assert vm.run("bash", "-c", vm.inside(script)) == 0, vm.said
    changed = {"IMAGE": IMAGE} | settings
    with vm.path(f"/etc/ncdemo/jobs/{identity}/job.env").open("a") as out:
        out.writelines(f"{key}={shlex.quote(str(value))}\n" for key, value in changed.items())
    return identity


def ended(vm: Machine, identity: str) -> str | None:
    path = vm.path(f"/var/lib/ncdemo/ended/{identity}")
    return path.read_text().strip() if path.exists() else None


def used(vm: Machine, identity: str) -> int:
    return int(vm.path(f"/var/lib/ncdemo/used-{identity}").read_text())


def lock_is_free(vm: Machine) -> bool:
    with vm.path("/run/ncdemo-job.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize(("code", "mark"), [(0, "0"), (2, "2"), (1, None), (75, None), (137, None)])
def test_the_workloads_exit_code_decides(code: int, mark: str | None, vm: Machine) -> None:
    identity = job(vm)
    vm.now(job=[0.2, code, 75])
    assert vm.run(vm.script("run-job"), identity) == code, vm.said
    assert ended(vm, identity) == mark
    assert vm.containers() == []
    assert lock_is_free(vm)


def test_sigterm_stops_the_container_and_passes_its_code_on(vm: Machine) -> None:
    identity = job(vm)
    vm.now(job=[60, 0, 75])
    process = vm.start(vm.script("run-job"), identity)
    vm.wait_for("start", identity)
    process.terminate()
    assert process.wait(timeout=30) == 75, vm.said
    assert vm.calls("docker", "stop")[0]["args"] == ["stop", "-t", "28", identity]
    assert ended(vm, identity) is None
    assert vm.containers() == []
    assert lock_is_free(vm)


def test_a_container_that_heeds_no_signal_is_killed(vm: Machine) -> None:
    identity = job(vm)
    vm.now(job=[60, 0, "ignore"])
    process = vm.start(vm.script("run-job"), identity)
    vm.wait_for("start", identity)
    process.terminate()
    assert process.wait(timeout=30) == 137, vm.said
    assert ended(vm, identity) is None


def test_sigterm_during_a_pull_starts_nothing(vm: Machine) -> None:
    identity = job(vm)
    vm.now(pull_s=20)
    process = vm.start(vm.script("run-job"), identity)
    until = time.monotonic() + 10
    while not vm.calls("docker", "pull"):
        assert time.monotonic() < until, vm.said
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=5) == 75, vm.said
    assert vm.events() == []
    assert ended(vm, identity) is None
    assert lock_is_free(vm)


def test_an_eviction_ends_the_job_as_a_signal_does(vm: Machine) -> None:
    identity = job(vm)
    vm.now(job=[60, 0, 75])
    process = vm.start(vm.script("run-job"), identity)
    vm.wait_for("start", identity)
    vm.now(job=[60, 0, 75], events=["Reboot"])
    time.sleep(1)
    assert process.poll() is None
    vm.now(job=[60, 0, 75], events=["Freeze", "Preempt"])
    assert process.wait(timeout=30) == 75
    assert "Azure takes this VM back" in vm.said
    asked = vm.calls("curl")[0]["args"]
    assert asked[-1] == "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
    assert asked[asked.index("-H") + 1] == "Metadata:true"


def test_the_deadline_counts_over_restarts(vm: Machine) -> None:
    identity = job(vm, DEADLINE_S=25)
    vm.now(job=[1, 1, 75])
    assert vm.run(vm.script("run-job"), identity) == 1
    first = used(vm, identity)
    assert 2 <= first <= 15
    vm.now(job=[60, 0, 75])
    began = time.monotonic()
    assert vm.run(vm.script("run-job"), identity) == 124
    assert time.monotonic() - began < (25 - first) / 10 + 15
    assert used(vm, identity) >= 25
    assert "the job ran for its 25 s" in vm.said
    assert vm.calls("docker", "stop")[0]["args"] == ["stop", "-t", "28", identity]
    assert ended(vm, identity) == "124"
    assert vm.containers() == []
    # Whoever starts it all the same pays for no container.
    starts = len(vm.calls("docker", "run"))
    assert vm.run(vm.script("run-job"), identity) == 124
    assert len(vm.calls("docker", "run")) == starts


def test_time_used_is_kept_while_the_job_runs(vm: Machine) -> None:
    """The machine may go away at any time."""
    identity = job(vm)
    vm.now(job=[60, 0, 75])
    process = vm.start(vm.script("run-job"), identity)
    until = time.monotonic() + 10
    while not vm.path(f"/var/lib/ncdemo/used-{identity}").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    process.kill()
    assert used(vm, identity) in (10, 20)
    # An empty file is what a crash may leave.
    vm.path(f"/var/lib/ncdemo/used-{identity}").write_text("")
    vm.now()
    assert vm.run(vm.script("run-job"), identity) == 0, vm.said


def test_two_jobs_run_one_after_the_other_in_their_order(vm: Machine) -> None:
    later, first = job(vm, "later", ORDER=8), job(vm, "tune", ORDER=1)
    vm.now(job=[1.5, 0, 75])
    processes = [vm.start(vm.script("run-job"), identity) for identity in (later, first)]
    assert [process.wait(timeout=20) for process in processes] == [0, 0], vm.said
    assert vm.events() == [("start", first), ("end", first), ("start", later), ("end", later)]


def test_a_killed_run_job_gives_the_machine_free(vm: Machine) -> None:
    """The lock goes with it, though its docker client lives on; its container goes before the next job's starts."""
    killed, following = job(vm, "later"), job(vm, "tune", ORDER=1)
    vm.now(job=[60, 0, 75])
    process = vm.start(vm.script("run-job"), killed)
    vm.wait_for("start", killed)
    process.kill()
    process.wait()
    assert vm.containers() == [killed]
    assert lock_is_free(vm)
    vm.now(job=[0.2, 0, 75])
    assert vm.run(vm.script("run-job"), following) == 0, vm.said
    removed = next(i for i, call in enumerate(vm.calls("docker")) if call["args"] == ["rm", "-f", killed])
    started = next(i for i, call in enumerate(vm.calls("docker")) if call["args"][0] == "run" and following in call["args"])
    assert removed < started
    assert vm.containers() == []


def flag(args: list[str], name: str) -> list[str]:
    return [args[at + 1] for at, word in enumerate(args) if word == name]


def test_what_docker_is_asked_for(vm: Machine) -> None:
    vm.path("/files").mkdir()
    identity = job(vm)
    assert vm.run(vm.script("run-job"), identity) == 0, vm.said
    (call,) = vm.calls("docker", "run")
    args = call["args"]
    at = args.index(IMAGE)
    assert [*flag(args[:at], "--entrypoint"), *args[at + 1 :]] == list(job_command())
    assert {"--read-only", "--rm"} <= set(args[:at])
    assert not {"--privileged", "-d", "-t", "-i"} & set(args[:at])
    for name, value in (("--user", "10001:10001"), ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges"), ("--gpus", "1")):
        assert flag(args, name) == [value]
    assert (flag(args, "--network"), flag(args, "--name"), flag(args, "-w")) == (["host"], [identity], ["/scratch"])
    assert flag(args, "--shm-size") == ["68g"]
    folder = vm.path(f"/etc/ncdemo/jobs/{identity}")
    volumes = dict(volume.split(":", 1) for volume in flag(args, "-v"))
    mnt = vm.path("/mnt/ncdemo")
    files = {str(vm.path(FILES_DIR)): FILES_DIR}
    assert volumes == {f"{mnt}/scratch": "/scratch", f"{mnt}/runs": "/runs", str(folder): "/etc/ncdemo:ro", **files}
    # The spec lies where the workload looks for it.
    assert SPEC_FILE == "/etc/ncdemo/run.yaml"
    assert load_run(folder / "run.yaml").kind == "train"
    assert stat.S_IMODE((folder / "run.yaml").stat().st_mode) == 0o644
    (env_file,) = flag(args, "--env-file")
    assert lines(Path(env_file).read_text()).items() >= {"NCDEMO_JOB": identity, "NCDEMO_RUNS": "/runs", "NCDEMO_NODE_RANK": "0"}.items()
    assert flag(args, "-e") == [f"AZURE_CLIENT_ID={CLIENT_ID}"]


@pytest.mark.skipif(not shutil.which("docker"), reason="needs docker's command line; no daemon")
def test_dockers_own_command_line_takes_every_call(vm: Machine) -> None:
    vm.path("/files").mkdir()
    vm.write("/etc/ncdemo/hf-token", TOKEN, 0o600)
    assert vm.run(vm.script("run-job"), job(vm, "served")) == 0, vm.said
    calls = [call["args"] for call in vm.calls("docker")]
    assert {args[0] for args in calls} == {"ps", "image", "pull", "run", "inspect", "rm"}
    env = {**os.environ, "DOCKER_HOST": "unix:///nonexistent"}
    for args in (*calls, ["stop", "-t", "28", "a"], ["logs", "--tail", "50", "a"], ["info"]):
        done = subprocess.run(["docker", *args], env=env, capture_output=True, text=True)
        assert "Cannot connect to the Docker daemon" in done.stderr or (args[0] == "rm" and done.returncode == 0), done.stderr


def test_no_gpus_and_no_shared_folder_are_asked_for_where_there_are_none(vm: Machine) -> None:
    assert vm.run(vm.script("run-job"), job(vm, GPUS=0)) == 0, vm.said
    (call,) = vm.calls("docker", "run")
    assert "--gpus" not in call["args"]
    assert not [volume for volume in flag(call["args"], "-v") if FILES_DIR in volume]


def test_the_token_reaches_the_container_by_name_alone(vm: Machine) -> None:
    identity = job(vm)
    vm.write("/etc/ncdemo/hf-token", TOKEN, 0o600)
    assert vm.run(vm.script("run-job"), identity) == 0, vm.said
    (call,) = vm.calls("docker", "run")
    assert "HF_TOKEN" in flag(call["args"], "-e")
    assert call["token"] == TOKEN
    assert not [c for c in vm._lines("calls") if TOKEN in json.dumps([c["args"], c["stdin"]])]
    assert TOKEN not in vm.said


def test_a_registry_of_azure_is_logged_in_to_by_identity(vm: Machine) -> None:
    image = "crdev.azurecr.io/ncdemo:1"
    identity = job(vm, IMAGE=image)
    assert vm.run(vm.script("run-job"), identity) == 0, vm.said
    imds, exchange = [c for c in vm.calls("curl") if "scheduledevents" not in c["args"][-1]]
    base, scope = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01", "https://management.azure.com/"
    assert imds["args"][-1] == f"{base}&resource={scope}&client_id={CLIENT_ID}"
    assert "Metadata:true" in imds["args"]
    assert "https://crdev.azurecr.io/oauth2/exchange" in exchange["args"]
    assert flag(exchange["args"], "-d") == ["grant_type=access_token", "service=crdev.azurecr.io"]
    assert flag(exchange["args"], "--data-urlencode") == ["access_token@-"]
    assert exchange["stdin"] == "arm-token"
    (login,) = vm.calls("docker", "login")
    user = "00000000-0000-0000-0000-000000000000"
    assert login["args"] == ["login", "crdev.azurecr.io", "-u", user, "--password-stdin"]
    assert login["stdin"] == "acr-token"
    order = [call["args"][0] for call in vm.calls("docker")]
    assert order.index("login") < order.index("pull") < order.index("run")
    # With the image there, neither the registry nor its login is needed.
    assert vm.run(vm.script("run-job"), identity) == 0
    assert len(vm.calls("docker", "login")) == len(vm.calls("docker", "pull")) == 1


@pytest.mark.parametrize("image", [IMAGE, "registry.example/x.azurecr.io/ncdemo:1", "crdev.azurecr.io.example/ncdemo:1"])
def test_no_other_registry_gets_a_token_of_azures(image: str, vm: Machine) -> None:
    assert vm.run(vm.script("run-job"), job(vm, IMAGE=image)) == 0, vm.said
    assert vm.calls("docker", "login") == []
    assert not [c for c in vm.calls("curl") if "identity" in c["args"][-1]]


@pytest.mark.parametrize("failing", ["login", "pull"])
def test_an_image_that_cannot_be_had_may_be_tried_again(failing: str, vm: Machine) -> None:
    identity = job(vm, IMAGE="crdev.azurecr.io/ncdemo:1")
    vm.now(docker_fails=[failing])
    assert vm.run(vm.script("run-job"), identity) == 1
    assert vm.events() == []
    assert ended(vm, identity) is None


def test_a_server_runs_beside_the_job(vm: Machine) -> None:
    identity = job(vm, "served")
    assert vm.run(vm.script("run-job"), identity) == 0, vm.said
    server, own = (call["args"] for call in vm.calls("docker", "run"))
    at = server.index("engine.example/server:1.0")
    command = CONFIG["jobs"][3]["server"]["command"]
    assert [*flag(server[:at], "--entrypoint"), *server[at + 1 :]] == command
    assert flag(server, "--name") == [f"{identity}-server"]
    assert {"-d", "--read-only"} <= set(server[:at])
    assert flag(server, "--cap-drop") == ["ALL"]
    # The GPUs are the server's.
    assert flag(server, "--gpus") == ["2"]
    assert flag(own, "--gpus") == []
    assert vm.events()[:2] == [("start", f"{identity}-server"), ("start", identity)]
    health = [c["args"] for c in vm.calls("curl") if "http://127.0.0.1:9000/health" in c["args"]]
    assert len(health) == 3
    assert vm.containers() == []
    assert ended(vm, identity) == "0"


@pytest.mark.parametrize(
    ("world", "start_s", "said"),
    [
        ({"server": [0.2, 1, 0], "healthy_after": 0}, 60, "the server ended before it was ready"),
        ({"healthy_after": 0}, 1, "the server isn't ready after 1 s"),
    ],
)
def test_a_server_that_does_not_come_up_is_an_error_with_its_log(world: dict[str, Any], start_s: int, said: str, vm: Machine) -> None:
    identity = job(vm, "served", SERVER_START_S=start_s)
    vm.now(**world)
    assert vm.run(vm.script("run-job"), identity) == 1
    assert said in vm.said
    assert "last words of the server" in vm.said
    assert ("start", identity) not in vm.events()
    assert ended(vm, identity) is None
    assert vm.containers() == []
    assert lock_is_free(vm)


def test_waiting_for_the_machine_is_not_the_servers_time(vm: Machine) -> None:
    identity = job(vm, "served", SERVER_START_S=60)
    # As after an hour behind another job: bash goes on counting from here.
    assert vm.run(vm.script("run-job"), identity, SECONDS="3600") == 0, vm.said


# scratch.


def mounted(vm: Machine) -> dict[str, str]:
    path = vm.world_dir / "mounts"
    return {Path(at).name: device for at, device in json.loads(path.read_text()).items()} if path.exists() else {}


def made(vm: Machine) -> list[str]:
    """Return the devices that got a new file system."""
    return [call["args"][-1] for call in vm.calls("mkfs.ext4")]


def scratch(vm: Machine) -> None:
    assert vm.run(vm.script("scratch")) == 0, vm.said
    for name in ("runs", "scratch"):
        assert vm.path(f"/mnt/ncdemo/{name}").is_dir()
    assert vm.calls("chown")[-1]["args"] == ["10001:10001", *(str(vm.path(f"/mnt/ncdemo/{name}")) for name in ("runs", "scratch"))]


def test_without_local_disks_scratch_is_on_the_os_disk(vm: Machine) -> None:
    vm.disks(sda={"children": ["sda1"]}, sdb={})
    scratch(vm)
    assert (mounted(vm), made(vm)) == ({}, [])
    assert "lie on the OS disk" in vm.said


def test_one_local_disk_is_formatted_and_mounted(vm: Machine) -> None:
    vm.disks(sda={"children": ["sda1"]}, nvme0n1={})
    scratch(vm)
    scratch(vm)
    assert (mounted(vm), made(vm)) == ({"ncdemo": "/dev/nvme0n1"}, ["/dev/nvme0n1"])
    assert vm.calls("mdadm") == []


def test_two_local_disks_become_one(vm: Machine) -> None:
    vm.disks(nvme0n1={}, nvme1n1={})
    scratch(vm)
    (create,) = vm.calls("mdadm")
    assert create["args"] == ["--create", "/dev/md/ncdemo", "--run", "--level=0", "--raid-devices=2", "/dev/nvme0n1", "/dev/nvme1n1"]
    assert (mounted(vm), made(vm)) == ({"ncdemo": "/dev/md/ncdemo"}, ["/dev/md/ncdemo"])


@pytest.mark.parametrize("count", [1, 2])
def test_after_a_reboot_what_is_there_is_mounted_as_it_is(count: int, vm: Machine) -> None:
    vm.disks(**{f"nvme{number}n1": {} for number in range(count)})
    scratch(vm)
    (vm.world_dir / "mounts").unlink()
    before = made(vm)
    scratch(vm)
    assert made(vm) == before
    assert mounted(vm) == {"ncdemo": before[0]}
    assert len(vm.calls("mdadm")) == count - 1


def test_after_a_deallocation_the_emptied_disks_are_formatted_again(vm: Machine) -> None:
    for _ in range(2):
        vm.disks(nvme0n1={}, nvme1n1={})
        scratch(vm)
    assert made(vm) == ["/dev/md/ncdemo"] * 2


def test_disks_that_hold_something_are_left_alone(vm: Machine) -> None:
    vm.disks(nvme0n1={"children": ["nvme0n1p1", "nvme0n1p15"]}, nvme1n1={"label": "someones-data"}, nvme2n1={"label": ""}, nvme3n1={})
    scratch(vm)
    assert (mounted(vm), made(vm)) == ({"ncdemo": "/dev/nvme3n1"}, ["/dev/nvme3n1"])
    assert vm.calls("mdadm") == []


# idle.


def idle(vm: Machine, minutes: float) -> list[dict[str, Any]]:
    """Look when the VM was last busy so long ago; return what was asked of Azure's management."""
    stamp = vm.path("/run/ncdemo-busy")
    stamp.touch()
    before = time.time() - minutes * 60
    os.utime(stamp, (before, before))
    assert vm.run(vm.script("idle")) == 0, vm.said
    return [c for c in vm.calls("curl") if "https://management.azure.com/subscriptions" in c["args"][-1]]


def test_an_idle_vm_deallocates_itself(vm: Machine) -> None:
    (call,) = idle(vm, 15.1)
    assert call["args"][-1] == f"https://management.azure.com{VM_ID}/deallocate?api-version=2024-11-01"
    assert flag(call["args"], "-X") == ["POST"]
    assert flag(call["args"], "-H") == ["@-", "Content-Length: 0"]
    assert call["stdin"] == "Authorization: Bearer arm-token\n"
    asked = [c["args"][-1] for c in vm.calls("curl")]
    assert asked[0] == "http://169.254.169.254/metadata/instance/compute?api-version=2021-02-01"
    assert asked[1].endswith(f"&resource=https://management.azure.com/&client_id={CLIENT_ID}")
    (jobs,) = [c["args"] for c in vm.calls("systemctl") if "ncdemo-job@*" in c["args"]]
    assert "--state=active,activating,deactivating" in jobs


BUSY: dict[str, dict[str, str]] = {
    "job": {"jobs": "ncdemo-job@tune-0123456789.service loaded activating auto-restart ncdemo job tune\n"},
    "first boot": {"first_boot": "cloud-final.service loaded activating start Cloud-init: Final Stage\n"},
    "login": {"who": "ncdemo pts/0 2026-11-24 10:00 (10.0.0.4)\n"},
    "keep": {},
}


@pytest.mark.parametrize("why", BUSY)
def test_a_busy_vm_stays(why: str, vm: Machine) -> None:
    vm.now(**BUSY[why])
    if why == "keep":
        vm.write("/etc/ncdemo/keep", "")
    assert idle(vm, 600) == []
    # The minutes count from here.
    assert time.time() - vm.path("/run/ncdemo-busy").stat().st_mtime < 60


def test_the_minutes_of_an_idle_vm_add_up(vm: Machine) -> None:
    assert vm.run(vm.script("idle")) == 0
    assert time.time() - vm.path("/run/ncdemo-busy").stat().st_mtime < 60
    assert idle(vm, 14.5) == []
    before = vm.path("/run/ncdemo-busy").stat().st_mtime
    assert vm.run(vm.script("idle")) == 0
    assert vm.path("/run/ncdemo-busy").stat().st_mtime == before


def test_a_vm_whose_systemd_does_not_answer_stays(vm: Machine) -> None:
    vm.now(systemctl_fails=["list-units"])
    vm.write("/run/ncdemo-busy", "")
    os.utime(vm.path("/run/ncdemo-busy"), (0, 0))
    assert vm.run(vm.script("idle")) == 1
    assert vm.calls("curl") == []


# The run command.


def start(vm: Machine, name: str, **env: str) -> int:
    return vm.run("bash", "-c", vm.inside(job_of(name)[1]), **env)


def asked(vm: Machine) -> list[str]:
    return [" ".join(call["args"]) for call in vm.calls("systemctl") if call["args"][0] != "is-active"]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mode, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_job_is_written_enabled_and_started(vm: Machine) -> None:
    identity, _ = job_of("tune")
    vm.path("/var/lib/ncdemo/ready").touch()
    assert start(vm, "tune") == 0, vm.said
    unit = f"ncdemo-job@{identity}.service"
    assert asked(vm) == ["daemon-reload", f"reset-failed {unit}", f"enable {unit}", f"start --no-block {unit}"]
    assert vm.path(f"/etc/systemd/system/{unit}.d/limits.conf").read_text() == "[Unit]\nStartLimitBurst=3\n"
    before = snapshot(vm.path("/etc"))
    assert start(vm, "tune") == 0, vm.said
    assert snapshot(vm.path("/etc")) == before
    assert asked(vm)[4:] == asked(vm)[:4]


def test_the_files_are_those_of_job_files(vm: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = vm_jobs.job_files, {}

    def job_files(args: Any, identity: str, rank: int, *rest: str) -> dict[str, str]:
        return seen.setdefault((identity, rank), original(args, identity, rank, *rest))

    monkeypatch.setattr(vm_jobs, "job_files", job_files)
    scripts = start_scripts(render(stack_of("dev", json.loads(json.dumps(CONFIG)), {})))
    vm.path("/var/lib/ncdemo/ready").touch()
    assert {f"{identity}-{rank}" for identity, rank in seen} == set(scripts)
    for (identity, rank), expected in seen.items():
        assert vm.run("bash", "-c", vm.inside(scripts[f"{identity}-{rank}"])) == 0, vm.said
        folder = vm.path(f"/etc/ncdemo/jobs/{identity}")
        assert {path.name: path.read_text() for path in folder.iterdir()} == expected
        load_run(folder / "run.yaml")
        env = lines(expected["container.env"])
        nodes = "2" if identity.startswith("tune-2x2") else "1"
        assert (env["NCDEMO_NODE_RANK"], env["NCDEMO_NODES"]) == (str(rank), nodes)
    assert {rank for identity, rank in seen if identity.startswith("tune-2x2")} == {0, 1}


def test_it_waits_for_the_first_boot(vm: Machine) -> None:
    process = vm.start("bash", "-c", vm.inside(job_of("tune")[1]))
    time.sleep(1.2)
    assert process.poll() is None
    assert asked(vm) == []
    vm.path("/var/lib/ncdemo/ready").touch()
    assert process.wait(timeout=30) == 0, vm.said
    assert asked(vm)[-1].startswith("start ")


@pytest.mark.parametrize("state", ["failed", "active"])
def test_a_first_boot_that_failed_fails_the_run_command(state: str, vm: Machine) -> None:
    """Active: cloud-init ended without an error of its own, or this is a later boot."""
    vm.now(cloud_final=state)
    vm.write("/var/log/cloud-init-output.log", "ncdemo: vm.setup ended with exit code 3\n")
    began = time.monotonic()
    assert start(vm, "tune") == 1
    assert time.monotonic() - began < 5
    assert "this VM is not ready for jobs: its first boot failed" in vm.said
    assert "vm.setup ended with exit code 3" in vm.said
    assert asked(vm) == []
    assert list(vm.path("/etc/ncdemo/jobs").iterdir()) == []


def test_another_version_of_the_job_makes_room(vm: Machine) -> None:
    vm.path("/var/lib/ncdemo/ready").touch()
    others = ["tune-2x2-0123456789", "tune-0123456789-0123456789", "tune-012345678", "retune-0123456789", "tune2-0123456789"]
    for name in ("tune-0123456789", "tune-abcdefabcd", *others):
        vm.path(f"/etc/ncdemo/jobs/{name}").mkdir()
    assert start(vm, "tune") == 0, vm.said
    disabled = [call for call in asked(vm) if call.startswith("disable")]
    assert disabled == [f"disable --now ncdemo-job@{name}.service" for name in ("tune-0123456789", "tune-abcdefabcd")]
    assert asked(vm)[-1] == f"start --no-block ncdemo-job@{job_of('tune')[0]}.service"


def test_a_suspended_job_is_written_and_not_started(vm: Machine) -> None:
    identity, _ = job_of("later")
    vm.path("/var/lib/ncdemo/ready").touch()
    assert start(vm, "later") == 0, vm.said
    assert vm.path(f"/etc/ncdemo/jobs/{identity}/run.yaml").exists()
    assert asked(vm) == ["daemon-reload"]


def test_the_token_is_in_one_file_that_root_alone_reads(vm: Machine) -> None:
    vm.path("/var/lib/ncdemo/ready").touch()
    script = job_of("tune")[1]
    plain = [base64.b64decode(word).decode() for word in re.findall(r"printf %s (\S{40,}) \| base64 -d", script)]
    assert len(plain) == 3
    assert not [text for text in (script, *plain) if TOKEN in text or "stand-in-for-the-token" in text]
    parameters = [one.inputs["protectedParameters"] for one in rendered().of("VirtualMachineRunCommandByVirtualMachine")]
    assert all(one for one in parameters)
    assert start(vm, "tune", HF_TOKEN=TOKEN) == 0, vm.said
    holding = [path for path in vm.root.rglob("*") if path.is_file() and path.name != "calls" and TOKEN.encode() in path.read_bytes()]
    assert holding == [vm.path("/etc/ncdemo/hf-token")]
    assert holding[0].read_text() == TOKEN
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    assert not [c for c in vm._lines("calls") if TOKEN in json.dumps([c["args"], c["stdin"]])]
    # A stack without one leaves it; another replaces it.
    assert start(vm, "tune") == 0
    assert holding[0].read_text() == TOKEN
    assert start(vm, "tune", HF_TOKEN="hf_other") == 0
    assert holding[0].read_text() == "hf_other"
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600


def test_the_connection_string_is_in_one_file_that_docker_alone_reads(vm: Machine) -> None:
    vm.path("/var/lib/ncdemo/ready").touch()
    identity, script = job_of("tune")
    assert CONNECTION_STAND_IN not in script
    given = "InstrumentationKey=00000000-0000-0000-0000-000000000000;IngestionEndpoint=https://eastus.example/;ApplicationId=$x 'y'"
    for _ in range(2):
        assert start(vm, "tune", APPLICATIONINSIGHTS_CONNECTION_STRING=given) == 0, vm.said
        held = vm.path(f"/etc/ncdemo/jobs/{identity}/container.env")
        assert lines(held.read_text())["APPLICATIONINSIGHTS_CONNECTION_STRING"] == given
        assert held.read_text().count(given) == 1
        assert stat.S_IMODE(held.stat().st_mode) == 0o600
    holding = [path for path in vm.root.rglob("*") if path.is_file() and path.name != "calls" and given.encode() in path.read_bytes()]
    assert holding == [held]
    assert start(vm, "tune") == 0
    assert given not in held.read_text()
