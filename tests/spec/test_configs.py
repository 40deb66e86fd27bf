"""Every YAML that ships under workloads/configs is a spec that loads, and survives a dump."""

from pathlib import Path

import pytest
import yaml

import workloads
from ncdemo.spec import SPECS, dump_spec, load_spec, parse_spec

CONFIGS = Path(workloads.__file__).parent / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*") if path.suffix in (".yaml", ".yml"))


def test_there_are_configs_of_every_kind() -> None:
    assert {yaml.safe_load(path.read_text())["kind"] for path in FILES} >= {"train", "bench"}, f"none found below {CONFIGS}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_config_loads(path: Path) -> None:
    model = SPECS[yaml.safe_load(path.read_text())["kind"]]
    spec = load_spec(path, model)
    assert parse_spec(dump_spec(spec), model) == spec
