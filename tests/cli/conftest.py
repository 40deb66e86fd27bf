"""Run directories from the report's tests."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("ncdemo_tests_cli_runs", Path(__file__).parents[1] / "report" / "conftest.py")
_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_runs)
train_run, bench_run = _runs.train_run, _runs.bench_run
