"""docs/telemetry.md lists every alert; the metrics are in docs/reference/, which tests/test_docs.py checks."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "telemetry.md").read_text()


def test_every_alert_is_in_the_table() -> None:
    files = (ROOT / "ncdemo" / "infra" / "alerts").glob("*.yml")
    found = {r["alert"] for path in files for group in yaml.safe_load(path.read_text())["groups"] for r in group["rules"] if "alert" in r}
    made = set(re.findall(r'"alert": "(\w+)"', (ROOT / "ncdemo" / "infra" / "alert_rules.py").read_text()))
    assert found | made == set(re.findall(r"^\| `(Ncdemo\w+)`", TEXT, re.MULTILINE))
