"""A model reference to something that loads: the embedded model, a folder or a hub id. Shared by training and inference."""

from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.common import EMBEDDED_MODEL, ModelRef
from workloads.data.embedded_model import embedded_model


def model_path(ref: ModelRef) -> str:
    """Return what from_pretrained takes: a folder, or a hub id."""
    return str(embedded_model()) if ref.name == EMBEDDED_MODEL else ref.name


def load_tokenizer(ref: ModelRef) -> Any:
    """Return the tokenizer, with a padding token. Raise SpecError when the model isn't there."""
    from transformers import AutoTokenizer

    tokenizer = load_pretrained(AutoTokenizer, ref)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_pretrained(kind: Any, ref: ModelRef, **options: Any) -> Any:
    """Call kind.from_pretrained; a model that isn't there or doesn't fit is one clear SpecError."""
    path = model_path(ref)
    try:
        return kind.from_pretrained(path, revision=ref.revision, **options)
    except (OSError, ValueError) as error:
        problem = str(error).strip().splitlines()[0]
        remedy = f"name a Hugging Face folder, a hub id that this machine can reach, or {EMBEDDED_MODEL}"
        raise SpecError(f"model.name = {ref.name!r}: cannot be loaded ({problem}); {remedy}") from None
