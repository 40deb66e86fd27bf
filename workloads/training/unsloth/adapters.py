"""How Unsloth sets up and saves; it steps as Accelerate does, so that its adapters stay fp32 and resume exactly.

Its trainer (TRL's, patched) would cast the adapters of a 4-bit model to bf16. Packing is refused by the spec: Unsloth's
attention doesn't know our borders.
"""

import os
from pathlib import Path
from typing import Any

# The loss is ours, so Unsloth must return logits instead of computing its own.
os.environ["UNSLOTH_RETURN_LOGITS"] = "1"
from unsloth import FastLanguageModel  # isort: skip  # before transformers and peft, which it patches

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ncdemo.spec.base import SpecError
from ncdemo.spec.train import TrainSpec
from workloads.data.models import load_pretrained, load_tokenizer
from workloads.training.accelerate.__main__ import Accelerate
from workloads.training.core.strategy import save_model


class Unsloth(Accelerate):
    """See core/strategy.py for what each method promises."""

    packs, patched = False, True

    def __init__(self, spec: TrainSpec) -> None:
        super().__init__(spec)
        self._spec = spec

    def load(self, spec: TrainSpec, checkpoint: Path | None) -> tuple[Any, Any]:
        lora = spec.train.lora
        model = load_pretrained(_FromPretrained, spec.model, **self._loading())
        targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
        try:
            model = FastLanguageModel.get_peft_model(
                model, r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets,
                bias="none", use_gradient_checkpointing=False, random_state=spec.train.seed,
            )  # fmt: skip
        except ValueError as error:
            raise SpecError(
                f"train.lora.target_modules = {targets}: {str(error).splitlines()[0]}; use all-linear or this model's layer names"
            ) from None
        if checkpoint:
            set_peft_model_state_dict(model, load_file(checkpoint / "adapter_model.safetensors"))
        if self.device.type == "cuda":
            _keep_asked(model)
        return load_tokenizer(spec.model), model

    def _loading(self) -> dict[str, Any]:
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return {"max_seq_length": self._spec.data.max_seq_len, "dtype": dtype, "load_in_4bit": self._train.unsloth.load_in_4bit}

    def setup(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.nn.Module:
        four_bit = any(type(module).__name__ == "Linear4bit" for module in model.modules())
        if four_bit != self._train.unsloth.load_in_4bit:
            raise SpecError(
                f"train.unsloth.load_in_4bit = {self._train.unsloth.load_in_4bit}: the model is {'' if four_bit else 'not '}in 4 bits"
            )
        adapters = {p.dtype for p in model.parameters() if p.requires_grad}
        assert adapters == {torch.float32}, adapters
        forward = super().setup(model, optimizer)
        self.engine = "unsloth" if self.device.type == "cuda" else "unsloth-cpu"  # never to be compared as Unsloth's speed
        return forward

    def save(self, tokenizer: Any, folder: Path) -> None:
        """Write adapter/, and model/: the adapters merged into the base model as it was before 4 bits, which is exact for no 4 bits."""
        if self.rank != 0:
            return
        save_model(self.unwrapped(), tokenizer, folder / "adapter")
        base = load_pretrained(AutoModelForCausalLM, self._spec.model, dtype=torch.float32)
        save_model(PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload(), tokenizer, folder / "model")


class _FromPretrained:
    """Unsloth's loader, called as transformers' are."""

    @staticmethod
    def from_pretrained(path: str, *, revision: str | None, **options: Any) -> Any:
        model, _ = FastLanguageModel.from_pretrained(model_name=path, revision=revision, **options)
        return model


def _keep_asked(model: Any) -> None:
    """Make the forward pass return the logits that are asked for: Unsloth's own ignores a tensor of positions and returns all."""
    forward = model.forward

    def kept(*args: Any, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
        if not isinstance(logits_to_keep, torch.Tensor):
            return forward(*args, logits_to_keep=logits_to_keep, **kwargs)
        out = forward(*args, **kwargs)
        out.logits = out.logits[:, logits_to_keep]
        return out

    model.forward = kept
