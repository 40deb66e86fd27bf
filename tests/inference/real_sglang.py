"""SGLang's real engine without a GPU: the Python that has it, and what makes a CPU do, for the engine's processes and not for ours.

scripts/setup_sglang_cpu.sh makes that Python (3 GB). What sglang_cpu/site stands in for is never called: each such kernel raises.
PyTorch's own attention answers instead, so no speed seen here says anything about SGLang.
"""

from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[2] / ".venv-sglang" / "bin" / "python"
CPU_ARGS = (
    "--device", "cpu", "--attention-backend", "torch_native", "--max-total-tokens", "4096",
    "--disable-cuda-graph", "--disable-overlap-schedule",
)  # fmt: skip
CPU_ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).parent / "sglang_cpu" / "site"),
    "SGLANG_USE_CPU_ENGINE": "1",
    "OMP_NUM_THREADS": "1",
}
MARKS = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-sglang: scripts/setup_sglang_cpu.sh"),
]
