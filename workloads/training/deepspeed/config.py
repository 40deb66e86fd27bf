"""DeepSpeed's config, generated from the spec, and the user's own file merged into it.

The spec decides what it has a key for, so that runs of different strategies stay comparable; the user's file adds what
only DeepSpeed knows (buckets, overlap, communication). Where both say something different, the run is refused.
"""

import json
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.train import Train


def generated(train: Train, precision: str, world_size: int) -> dict[str, Any]:
    """Return what the spec says in DeepSpeed's words."""
    section = train.deepspeed
    zero: dict[str, Any] = {"stage": section.zero_stage}
    if section.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if section.offload_params:
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": train.micro_batch_size,
        "gradient_accumulation_steps": train.grad_accum_steps,
        "train_batch_size": train.micro_batch_size * train.grad_accum_steps * world_size,
        "gradient_clipping": train.max_grad_norm or 0.0,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": False},
        "zero_optimization": zero,
        # Ours is torch's fused AdamW, which needs no compiler on the machine; DeepSpeed's own would be compiled at the start.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def merged(ours: dict[str, Any], file: str | None) -> dict[str, Any]:
    """Return the generated config with the user's file in it. Raise SpecError naming both values where they differ."""
    if file is None:
        return ours
    where = f"train.deepspeed.config_file = {file!r}"
    try:
        theirs = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{where}: {error.strerror}; give the path of a DeepSpeed config in JSON") from None
    except ValueError as error:
        raise SpecError(f"{where}: is not JSON ({error}); give a DeepSpeed config") from None
    if not isinstance(theirs, dict):
        raise SpecError(f"{where}: holds {json.dumps(theirs)[:60]}; it must be a JSON object, as a DeepSpeed config is")
    for key in ("optimizer", "scheduler"):
        if key in theirs:
            raise SpecError(f"{where}: {key} is set there; AdamW and the schedule are the spec's (train.learning_rate, ...): remove it")
    return _merge(ours, theirs, where, "")


def _merge(ours: dict[str, Any], theirs: dict[str, Any], where: str, prefix: str) -> dict[str, Any]:
    out = dict(ours)
    for key, value in theirs.items():
        name, said = f"{prefix}{key}", ours.get(key)
        if value == "auto" and key in ours:  # what Hugging Face's trainers fill in as well
            continue
        if isinstance(value, dict) and isinstance(said, dict):
            out[key] = _merge(said, value, where, f"{name}.")
        elif key in ours and value != said:
            raise SpecError(
                f"{where}: {name} is {json.dumps(value)} there and {json.dumps(said)} by the spec; make them equal or remove it"
            )
        else:
            out[key] = value
    return out
