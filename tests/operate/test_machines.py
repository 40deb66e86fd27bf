"""Jobs on VMs: Resource Manager on loopback with the SDK's own way to a machine's identity, and results in a real blob service."""

import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ncdemo.spec.job_labels import VM_STATE, job_unit

JOB = "tune-0123456789"
STACK = ("--stack", "vm-dev")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def api(ncdemo: Any, azurite: Any) -> Iterator[Any]:
    """Two VMs with a job of two nodes that has started."""
    spec = importlib.util.spec_from_file_location("ncdemo_tests_arm_api", Path(__file__).parent / "arm_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outputs = {"resource_group": "rg", "storage_account": "ncdemo", "results": "az://metrics/jobs", "vms": ["vm-0", "vm-1"]}
    pulumi = ncdemo.bin / "pulumi"
    pulumi.write_text(f"#!/bin/sh\necho '{json.dumps(outputs)}'\n")
    pulumi.chmod(0o755)
    with module.ArmApi() as api:
        ncdemo.env |= api.env() | {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
        done = {"executionState": "Succeeded", "startTime": "2026-01-01T00:00:00+00:00"}
        api.vm("vm-0", {f"{JOB}-0": dict(done), "somebody-elses": {}})
        api.vm("vm-1", {f"{JOB}-1": dict(done)})
        yield api


def upload(azurite: Any, **files: str) -> None:
    from azure.storage.blob import ContainerClient

    with ContainerClient.from_connection_string(azurite.connection_string, "metrics") as client:
        for name, text in files.items():
            client.upload_blob(f"jobs/{JOB}/{name.replace('_', '.')}", text, overwrite=True)


def state(ncdemo: Any) -> tuple[str, str]:
    (found,) = json.loads(ncdemo.here("jobs", "ls", *STACK, "--json"))
    return found["state"], found["detail"]


def test_the_state_is_that_of_the_run_command_the_vm_and_the_copy(ncdemo: Any, api: Any, azurite: Any) -> None:
    view = api.commands["vm-0"][f"{JOB}-0"]
    assert "vm-0, vm-1" in ncdemo.here("jobs", "ls", *STACK)
    assert state(ncdemo) == ("running", "")
    view["executionState"] = "Running"
    assert state(ncdemo) == ("waiting", "its run command waits for the VM")
    view |= {"executionState": "Failed", "error": "a\nthis VM is not ready for jobs\n"}
    assert state(ncdemo) == ("failed", "it was not started: this VM is not ready for jobs")
    view["executionState"] = "Succeeded"
    api.powers["vm-0"] = "deallocated"
    assert state(ncdemo) == ("interrupted", f"vm-0 is deallocated; go on with: ncdemo jobs retry {JOB}")
    upload(azurite, result_json='{"status": "finished", "kind": "train"}')
    assert state(ncdemo) == ("finished", "")
    assert ncdemo.here("jobs", "wait", "tune", *STACK) == f"{JOB}: finished\n"
    assert "see its results" in ncdemo.mistake("jobs", "retry", "tune", *STACK, "--yes")


def test_logs_come_from_storage_until_the_job_has_ended(ncdemo: Any, api: Any, azurite: Any) -> None:
    assert "node 0 has no log in storage yet" in ncdemo.mistake("jobs", "logs", "tune", *STACK)

    def write() -> None:
        time.sleep(1)
        upload(azurite, log_txt="one\n")
        time.sleep(1)
        upload(azurite, log_txt="one\ntwo\n")
        upload(azurite, result_json='{"status": "failed", "reason": "no data"}')

    threading.Thread(target=write).start()
    assert ncdemo.here("jobs", "logs", "tune", *STACK, "--follow") == "one\ntwo\n"
    assert "waits for its log" in ncdemo.err
    assert ncdemo.here("jobs", "logs", "tune", *STACK, "--tail", "1") == "two\n"
    assert ncdemo.here("jobs", "wait", "tune", *STACK, code=1) == f"{JOB}: failed (no data)\n"
    time.sleep(1.1)
    upload(azurite, log_txt="one\ntwo\nthree\n")
    assert state(ncdemo) == ("running", ""), "its result is that of an attempt before"
    assert "started again after it was failed" in json.loads(ncdemo.here("results", "ls", "--json"))[0]["detail"]


def test_cancel_and_retry_run_on_every_vm_of_the_job(ncdemo: Any, api: Any, azurite: Any) -> None:
    assert "--yes" in ncdemo.mistake("jobs", "cancel", "tune", *STACK)
    assert api.scripts == []
    assert "cancel it first" in ncdemo.mistake("jobs", "retry", "tune", *STACK, "--yes")
    assert ncdemo.here("jobs", "cancel", "tune", *STACK, "--yes").startswith(f"{JOB}: cancelled")
    assert [vm for vm, script in api.scripts if f"systemctl disable --now {job_unit(JOB)}" in script] == ["vm-0", "vm-1"]
    api.powers["vm-1"] = "deallocated"
    upload(azurite, result_json='{"status": "interrupted", "reason": "stopped"}')
    api.scripts.clear()
    assert ncdemo.here("jobs", "retry", "tune", *STACK, "--yes").startswith(f"{JOB}: started again")
    assert "vm-1: is being started; it costs money" in ncdemo.err
    assert api.powers["vm-1"] == "running"
    assert [vm for vm, script in api.scripts if f"systemctl start --no-block {job_unit(JOB)}" in script] == ["vm-0", "vm-1"]
    assert f"rm -f {VM_STATE}/ended/{JOB} {VM_STATE}/used-{JOB}" in api.scripts[0][1]
    api.says = "ncdemo: the unit is not there"
    assert "the job's files are not there; they come with: ncdemo stack up" in ncdemo.mistake("jobs", "retry", "tune", *STACK, "--yes")
    api.says = "Failed to enable unit"
    assert "the script failed (Failed to enable unit)" in ncdemo.mistake("jobs", "retry", "tune", *STACK, "--yes")


def test_a_job_that_was_cancelled_before_its_first_copy_is_cancelled(ncdemo: Any, api: Any, azurite: Any) -> None:
    assert state(ncdemo) == ("running", "")
    ncdemo.here("jobs", "cancel", "tune", *STACK, "--yes")
    assert state(ncdemo) == ("cancelled", f"start it again with: ncdemo jobs retry {JOB}")
    assert f"{JOB}-1-cancelled" in api.commands["vm-1"]
    assert ncdemo.here("jobs", "wait", "tune", *STACK, code=75).startswith(f"{JOB}: cancelled")
    ncdemo.here("jobs", "cancel", "tune", *STACK, "--yes")
    assert len(api.scripts) == 4, "whoever isn't sure says it again"
    ncdemo.here("jobs", "retry", "tune", *STACK, "--yes")
    assert state(ncdemo) == ("running", "")
    assert list(api.commands["vm-0"]) == [f"{JOB}-0", "somebody-elses"], "nothing of it stays"


def test_a_cancel_that_failed_is_none_and_a_job_that_speaks_later_runs(ncdemo: Any, api: Any, azurite: Any) -> None:
    api.says = "Failed to disable unit"
    assert "the script failed (Failed to disable unit)" in ncdemo.mistake("jobs", "cancel", "tune", *STACK, "--yes")
    assert state(ncdemo) == ("running", "")
    api.says = "ncdemo: ok"
    ncdemo.here("jobs", "cancel", "tune", *STACK, "--yes")
    time.sleep(1.1)
    upload(azurite, log_txt="started by hand, on the VM\n")
    assert state(ncdemo) == ("running", "")
    upload(azurite, result_json='{"status": "finished", "kind": "train"}')
    assert state(ncdemo) == ("finished", "")


def test_what_the_scripts_name_is_what_a_vm_has() -> None:
    files = ROOT / "ncdemo" / "infra" / "vm_files"
    assert (files / f"{job_unit('').removesuffix('.service')}.service").exists()
    runner = (files / "run-job").read_text()
    assert f'"{VM_STATE}/ended/$name"' in runner
    assert f"{VM_STATE}/used-$name" in runner


def test_what_goes_wrong_is_one_line_with_its_remedy(ncdemo: Any, api: Any) -> None:
    api.subscriptions = ["a", "b"]
    assert "this identity sees 2 subscriptions; say which with AZURE_SUBSCRIPTION_ID" in ncdemo.mistake("jobs", "ls", *STACK)
    api.subscriptions = ["0000-sub"]
    del api.powers["vm-1"]
    assert ncdemo.mistake("jobs", "ls", *STACK).endswith("Azure: The Resource was not found; check the stack with: ncdemo stack up")
    api.refuse = lambda method, path: (403, "The client does not have authorization")
    assert "ask for the role Virtual Machine Contributor" in ncdemo.mistake("jobs", "ls", *STACK)
    asked = iter([(503, "busy"), (429, "slow down"), None])
    api.refuse = lambda method, path: next(asked, None)
    assert "check the stack with" in ncdemo.mistake("jobs", "ls", *STACK), "a busy service is asked again"
    assert "can't be reached" in ncdemo.mistake("jobs", "ls", *STACK, NCDEMO_ARM_URL="http://127.0.0.1:9", AZURE_SUBSCRIPTION_ID="0000-sub")
