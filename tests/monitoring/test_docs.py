"""docs/telemetry.md says of every exported metric and every alert what the code says."""

import re
from pathlib import Path

import yaml

from workloads.metrics.exporters.names import NAMES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "telemetry.md").read_text()


def test_every_exported_metric_is_in_the_table_as_it_is_exported() -> None:
    rows = {name: f"| `{name}` | {about.kind} | {', '.join(about.labels) or '-'} | {about.help} |" for name, about in NAMES.items()}
    assert set(re.findall(r"^\| `ncdemo_.*$", TEXT, re.MULTILINE)) == set(rows.values())


def test_every_alert_is_in_the_table() -> None:
    files = (ROOT / "ncdemo" / "infra" / "alerts").glob("*.yml")
    found = {r["alert"] for path in files for group in yaml.safe_load(path.read_text())["groups"] for r in group["rules"] if "alert" in r}
    made = set(re.findall(r'"alert": "(\w+)"', (ROOT / "ncdemo" / "infra" / "alert_rules.py").read_text()))
    assert found | made == set(re.findall(r"^\| `(Ncdemo\w+)`", TEXT, re.MULTILINE))
