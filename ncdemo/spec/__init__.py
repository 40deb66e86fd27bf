"""The seam: typed specs in, typed results out. Imports nothing else of ncdemo; everything else imports it.

from ncdemo.spec import TrainSpec, load_spec
spec = load_spec("workloads/configs/training/demo.yaml", TrainSpec, ["train.max_steps=20"])
"""

from ncdemo.spec.base import Spec, SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.load import dump_spec, load_spec, parse_spec
from ncdemo.spec.stack import StackSpec
from ncdemo.spec.train import TrainSpec

SPECS: dict[str, type[Spec]] = {"train": TrainSpec, "bench": BenchSpec, "stack": StackSpec}

__all__ = ["SPECS", "BenchSpec", "Spec", "SpecError", "StackSpec", "TrainSpec", "dump_spec", "load_spec", "parse_spec"]
