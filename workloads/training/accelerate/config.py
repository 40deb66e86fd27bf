"""The user's own Accelerate YAML (`accelerate config` writes one), read beside the spec.

The spec decides what it has a key for, so that runs of different strategies stay comparable; the file adds what only FSDP2 knows.
Where both say something different, and where the file says what nothing here would heed, the run is refused.
"""

from pathlib import Path
from typing import Any

import yaml

from ncdemo.spec.base import SpecError
from ncdemo.spec.train import Train

WRAP = "fsdp_transformer_layer_cls_to_wrap"
OPTIONS = {
    "fsdp_reshard_after_forward": "reshard_after_forward",
    "fsdp_activation_checkpointing": "activation_checkpointing",
    WRAP: "transformer_cls_names_to_wrap",
}
"""Keys of fsdp_config that are taken over -> the plugin's names for them."""
PLACES = ("machine_rank", "main_process_ip", "main_process_port", "gpu_ids", "same_network", "rdzv_backend", "main_training_function")
"""Where ranks are: the launcher says it anew for every node and run, so what the file says has no bearing."""


def options(train: Train, *, precision: str, nodes: int, cpu: bool) -> dict[str, Any]:
    """Return the FSDP plugin's options in the user's file; {} without one. Raise SpecError naming both values where it contradicts."""
    file = train.accelerate.config_file
    if file is None:
        return {}
    where = f"train.accelerate.config_file = {file!r}"
    theirs = _read(file, where)
    sharded = train.accelerate.sharding == "fsdp2"
    _check(where, "", theirs, _said(train, precision, nodes, cpu), (*PLACES, "fsdp_config"))
    found = theirs.get("fsdp_config") or {}
    if not sharded:
        if found:
            raise SpecError(
                f"{where}: fsdp_config is set there and train.accelerate.sharding is 'none'; set it to fsdp2, or remove fsdp_config"
            )
        return {}
    if not isinstance(found, dict):
        raise SpecError(f"{where}: fsdp_config is {found!r} there; it must be a mapping")
    ours = {"fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_offload_params": False, "fsdp_state_dict_type": None,
            "fsdp_cpu_ram_efficient_loading": False}  # fmt: skip
    _check(where, "fsdp_config.", found, ours, tuple(OPTIONS))
    taken = {OPTIONS[key]: value for key, value in found.items() if key in OPTIONS}
    for key in ("reshard_after_forward", "activation_checkpointing"):
        if not isinstance(taken.get(key, True), bool):
            raise SpecError(f"{where}: fsdp_config.fsdp_{key} is {taken[key]!r} there; with FSDP2 it must be true or false")
    said = train.speed.activation_checkpointing
    if "activation_checkpointing" in taken and said != "auto":
        raise SpecError(
            f"{where}: fsdp_config.fsdp_activation_checkpointing is {taken['activation_checkpointing']} there and "
            f"train.speed.activation_checkpointing is {said}; set one of the two alone"
        )
    if taken.get("activation_checkpointing") and train.lora.dropout:
        raise SpecError(
            f"{where}: fsdp_config.fsdp_activation_checkpointing is true there and train.lora.dropout is {train.lora.dropout}: "
            "Accelerate would compute the forward pass again with another dropout; remove it there and set train.speed.activation_checkpointing, "
            "which draws the same"
        )
    if isinstance(taken.get(OPTIONS[WRAP]), str):
        taken[OPTIONS[WRAP]] = [name.strip() for name in taken[OPTIONS[WRAP]].split(",")]
    return taken


def _said(train: Train, precision: str, nodes: int, cpu: bool) -> dict[str, Any]:
    """Return what the spec and the job say, in the words of Accelerate's file. None: anything goes, as it decides nothing here."""
    ranks = nodes * train.processes
    alone = "NO" if ranks == 1 else "MULTI_CPU" if cpu else "MULTI_GPU"
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP" if train.accelerate.sharding == "fsdp2" else alone,
        "num_processes": ranks,
        "num_machines": nodes,
        "mixed_precision": "bf16" if precision == "bf16" else "no",
        "use_cpu": cpu,
        "downcast_bf16": False,
        "enable_cpu_affinity": False,
        "tpu_env": [],
        "tpu_use_cluster": False,
        "tpu_use_sudo": False,
        "debug": False,
    }


def _check(where: str, prefix: str, theirs: dict[str, Any], ours: dict[str, Any], free: tuple[str, ...]) -> None:
    """Raise SpecError for a key that differs from ours (None: anything goes), and for one that is neither ours nor free."""
    for key, value in theirs.items():
        if key in free:
            continue
        if key not in ours:
            known = ", ".join(sorted((*ours, *free)))
            raise SpecError(f"{where}: {prefix}{key} is unknown here, so it would be ignored; remove it. Known: {known}")
        if ours[key] is not None and _plain(value) != _plain(ours[key]):
            raise SpecError(f"{where}: {prefix}{key} is {value!r} there and {ours[key]!r} by the spec; make them equal or remove it")


def _plain(value: Any) -> Any:
    """Return a value as Accelerate compares it: `no` without quotes is YAML's false, and 'NO' is written as well."""
    if value is False:
        return "no"
    return value.lower() if isinstance(value, str) else value


def _read(file: str, where: str) -> dict[str, Any]:
    try:
        theirs = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{where}: {error.strerror}; give the path of an Accelerate config in YAML") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{where}: is not YAML ({str(error).splitlines()[0]}); give an Accelerate config") from None
    if not isinstance(theirs, dict):
        raise SpecError(f"{where}: holds {str(theirs)[:60]!r}; it must be a mapping, as an Accelerate config is")
    return theirs
