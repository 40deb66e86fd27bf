"""environment.json says what a result was measured on, and nothing that is nobody's business."""

import importlib.metadata
import json
import platform
import subprocess
import sys

import pytest

from workloads.metrics import environment as module
from workloads.metrics.environment import environment
from workloads.metrics.redact import redact, redact_arguments


def test_it_names_the_machine_the_versions_and_the_source():
    content = environment("abc123")
    assert json.loads(json.dumps(content)) == content
    assert content["spec_hash"] == "abc123"
    assert content["python"] == platform.python_version()
    assert content["memory_total_bytes"] > 1 << 28
    assert 1 <= content["cpu"]["affinity_cores"] <= content["cpu"]["logical_cores"]
    assert content["packages"]["psutil"] == importlib.metadata.version("psutil")
    assert None not in content["packages"].values()


def test_no_secret_and_no_host(monkeypatch):
    for name in ("HF_TOKEN", "AZURE_CLIENT_SECRET", "MLFLOW_TRACKING_PASSWORD", "NCCL_CANARY", "OMP_CANARY"):
        monkeypatch.setenv(name, "canary-7331")
    monkeypatch.setattr(sys, "orig_argv", ["python", "--api-key", "canary-7331", "hub.token=canary-7331", "http://me:canary-7331@host"])
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    content = environment("abc")
    assert "canary" not in json.dumps(content)
    assert content["env"]["OMP_NUM_THREADS"] == "2"
    assert content["command_line"] == ["python", "--api-key", "***", "hub.token=***", "http://***@host"]
    assert not any("host" in key or "node" in key for key in content if key != "nodes")  # how many
    assert platform.node() not in [content["platform"], content["kernel"]]


def test_it_never_raises(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("broken")

    for name in ("_cpuinfo", "_cpu_model", "_cgroup", "_nvml", "_git", "_version"):
        monkeypatch.setattr(module, name, broken)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module.psutil, "virtual_memory", broken)
    monkeypatch.setattr(module.psutil, "cpu_count", broken)
    monkeypatch.setattr(module, "PACKAGES", ())
    content = environment("abc")
    assert content["memory_total_bytes"] is content["uv_lock_sha256"] is content["git_commit"] is content["gpus"] is None
    assert content["cpu"]["model"] is content["cpu"]["isa"] is content["cpu"]["cgroup_cores"] is None


def test_commit_and_dirty_flag(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("NCDEMO_GIT_COMMIT", "feed")
    assert module._git() == ("feed", None), "an image has no checkout, and says what it was built from"
    for command in (["init", "-q"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "t"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit, dirty = module._git()
    assert len(commit) == 40
    assert dirty is False
    (tmp_path / "new.py").touch()
    assert module._git() == (commit, True)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert module._git() == (commit, True), "a git hook's GIT_DIR must not point it at another repository"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1"}, None),
    ],
)
def test_cpu_quota(monkeypatch, files, cores):
    monkeypatch.setattr(module, "_cgroup", files.get)
    assert module._cgroup_cores() == cores


def test_redaction_keeps_what_is_no_secret():
    kept = ["--set", "sampling.max_new_tokens=64", "--tokenizer", "gpt2", "https://host/a@b?page=1", "disaster=1"]
    assert redact_arguments(kept) == kept
    assert redact("postgresql://me:pw@host/db") == "postgresql://***@host/db"
    assert redact("https://x.blob/y?sv=1&sig=a%2Fb&se=2") == "https://x.blob/y?sv=1&sig=***&se=2"
    assert (
        redact('{"a":"http://host","by":"x@y","b":"https://h/?sig=a","n":1}')
        == '{"a":"http://host","by":"x@y","b":"https://h/?sig=***","n":1}'
    )
    assert redact("hf_" + "aB3" * 8 + " of hf_hub_download") == "*** of hf_hub_download"
    assert redact("Authorization: Bearer abc.def-ghi_jkl/mno= x") == "Authorization: Bearer *** x"
    assert redact("the Bearer of bad news") == "the Bearer of bad news"
    assert redact_arguments(["--sas-token=x", "storage.sas=x", "--password", "x", "y"]) == [
        *("--sas-token=***", "storage.sas=***", "--password", "***", "y")
    ]
