"""`make audit`: what it says of vulnerabilities, and above all when nobody could say. A stand-in of pip-audit answers in its real form."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCK = """\
version = 1
[[package]]
name = "click"
version = "8.3.0"
source = { registry = "https://index.invalid/simple" }
[[package]]
name = "torch"
version = "2.10.0"
source = { registry = "https://index.invalid/simple" }
[[package]]
name = "torch"
version = "2.13.0"
source = { registry = "https://index.invalid/simple" }
[[package]]
name = "ncdemo"
version = "0.1.0"
source = { editable = "." }
"""
TOOL = """\
#!{python}
import json, os, sys
known = json.loads(os.environ["KNOWN"])
pins = [line.strip().split("==") for line in open(sys.argv[sys.argv.index("-r") + 1])]
assert len(pins) == len(dict(pins)), "a package comes twice"
if known is None:
    sys.exit("ServiceError: connection failed")
found = [{{"name": n, "skip_reason": "not found"}} if known.get(n) == "skip" else
         {{"name": n, "version": v, "vulns": known.get(n + " " + v, [])}} for n, v in pins]
print(json.dumps({{"dependencies": found, "fixes": []}}))
"""
BAD = [{"id": "PYSEC-1", "fix_versions": ["2.11"], "aliases": ["CVE-1"]}]
CONTROL = {"jinja2 2.10": BAD}


@pytest.mark.parametrize(
    ("known", "code", "said"),
    [
        (CONTROL, 0, ["3 pins of uv.lock: 0 known vulnerabilities, 0 packages not audited"]),
        (CONTROL | {"torch 2.10.0": BAD}, 1, ["torch 2.10.0: PYSEC-1 CVE-1; mended in: 2.11", "Remedy: uv lock -P NAME"]),
        (CONTROL | {"click": "skip"}, 2, ["1 packages not audited", "not audited: click. Remedy: ask another service"]),
        ({}, 2, ["not audited: pypi has no advisories here", "it names no vulnerability", "Remedy: run this where"]),
        ({"jinja2": "skip"}, 2, ["not audited: pypi has no advisories here", "not found"]),
        (None, 2, ["not audited: pip-audit failed (ServiceError: connection failed)", "Remedy: "]),
    ],
)
def test_what_it_says(known: object, code: int, said: list[str], tmp_path: Path) -> None:
    tool = tmp_path / "pip-audit"
    tool.write_text(TOOL.format(python=sys.executable))
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "uv.lock").write_text(LOCK)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "KNOWN": json.dumps(known)}
    command = [sys.executable, str(ROOT / "scripts" / "audit.py"), "--lock", str(tmp_path / "uv.lock")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    assert all(text in done.stdout for text in said), done.stdout
    assert "safe" not in done.stdout


def test_every_pin_of_the_real_lock_is_asked_for() -> None:
    code = (
        "import sys; sys.path.insert(0, 'scripts'); import audit; from pathlib import Path; p = audit.pins(Path('uv.lock'));"
        "lists = audit.without_doubles(p); print(len(p), sum(map(len, lists)), all(len(dict(one)) == len(one) for one in lists))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    pins, asked, once = done.stdout.split()
    assert pins == asked
    assert int(pins) > 300
    assert once == "True"
