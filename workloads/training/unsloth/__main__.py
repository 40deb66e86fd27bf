"""The Unsloth strategy: LoRA or QLoRA adapters with Unsloth's own kernels on a GPU, its own CPU backend elsewhere.

accelerate launch -m workloads.training.unsloth --run runs/demo      # runs/demo/spec.yaml says what to do
"""

import importlib.util

from ncdemo.spec.base import SpecError
from workloads.run import main_guard


def main() -> None:
    if importlib.util.find_spec("unsloth") is None:
        raise SpecError("train.strategy = 'unsloth': the package isn't installed; scripts/setup_env.sh --extra train --extra unsloth")
    # First of all that imports transformers: it must find Unsloth's patches in place.
    from workloads.training.unsloth.adapters import Unsloth  # isort: skip
    from workloads.training.core.main import run_rank  # isort: skip

    run_rank(Unsloth)


if __name__ == "__main__":
    main_guard(main)
