"""Fixtures that several rooms share: the embedded model, a tiny one with its tokenizer, a real blob service."""

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Two test processes share the cores; torch's threads would wait for each other. Workloads started here inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell starts what it puts into the background with SIGINT ignored, and every process of a test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The embedded model's folder (converted once into the user's cache)."""
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("needs the demo extra: scripts/setup_env.sh --extra demo")
    from workloads.data.embedded_model import embedded_model

    return embedded_model()


@pytest.fixture(scope="session")
def tokenizer(embedded: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs the train extra")
    return transformers.AutoTokenizer.from_pretrained(embedded)


@pytest.fixture(scope="session")
def tiny_model(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with seeded random weights and the embedded model's tokenizer: real code paths, no time."""
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(
        embedded, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded / file, folder / file)
    return folder


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[Any]:
    """A running blob service with an empty container `metrics`."""
    spec = importlib.util.spec_from_file_location("ncdemo_tests_azurite", Path(__file__).parent / "azurite.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not module.find():
        pytest.skip("Azurite is not installed; .ci/run brings it where npm is")
    with module.Azurite(tmp_path / "blobs") as service:
        service.container("metrics").close()
        yield service
