"""Load what is fine-tuned: tokenizer and model, with adapters when the method is LoRA."""

from pathlib import Path
from typing import Any

import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.train import TrainSpec
from workloads.data.models import load_pretrained, load_tokenizer


def load_model(spec: TrainSpec, checkpoint: Path | None = None) -> tuple[Any, Any]:
    """Return (tokenizer, model in fp32), with the weights or adapters of a checkpoint where there is one."""
    from transformers import AutoModelForCausalLM

    from workloads.training.core.attention import register

    register()
    tokenizer = load_tokenizer(spec.model)
    if checkpoint and spec.train.method == "full":
        return tokenizer, AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    model = load_pretrained(AutoModelForCausalLM, spec.model, dtype=torch.float32)
    if spec.train.method == "lora":
        from peft import LoraConfig, PeftModel, get_peft_model

        if checkpoint:
            return tokenizer, PeftModel.from_pretrained(model, checkpoint, is_trainable=True)
        lora = spec.train.lora
        targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
        config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM")
        try:
            model = get_peft_model(model, config)
        except ValueError as error:
            raise SpecError(
                f"train.lora.target_modules = {targets}: {str(error).splitlines()[0]}; use all-linear or this model's layer names"
            ) from None
    return tokenizer, model


def with_weights(spec: TrainSpec, weights: dict[str, torch.Tensor]) -> Any:
    """Return a fresh model with whole weights that a sharded strategy has gathered; with LoRA the adapters' alone."""
    _, model = load_model(spec)
    unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
    assert not unexpected, unexpected
    return model
