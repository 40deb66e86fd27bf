#!/usr/bin/env python3
"""Look for known vulnerabilities in every package that uv.lock pins, all extras together, with pip-audit.

    make audit                              # by the package index's advisories
    python scripts/audit.py --service osv   # by OSV's

pip-audit takes a package that its service doesn't know for one without vulnerabilities. So it is first asked about a release that has
known ones: unless it names them, there is no advisory data here, and nothing is said to be safe. Ends with 0 (none known),
1 (vulnerabilities), 2 (not audited, whole or in part).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VERSION = "2.10.1"
CONTROL = ("jinja2", "2.10")
"""A sandbox escape (CVE-2019-10906) and later ones are known of it."""
ACCEPTED: dict[str, str] = {}
"""Id of an advisory -> why it doesn't matter here."""
Pin = tuple[str, str]


def main() -> int:
    """Audit the lock; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="where advisories are looked up (default: the index)")
    parser.add_argument("--lock", type=Path, default=ROOT / "uv.lock")
    given = parser.parse_args()
    control = audit([CONTROL], given.service)
    if not any(one.get("vulns") for one in control):
        said = next((one["skip_reason"] for one in control if "skip_reason" in one), "it names no vulnerability")
        print(f"not audited: {given.service} has no advisories here. Asked about {CONTROL[0]} {CONTROL[1]}, which has known ones: {said}")
        print("Remedy: run this where that service is reached, or with the other: python scripts/audit.py --service osv")
        return 2
    wanted = pins(given.lock)
    found = [one for some in without_doubles(wanted) for one in audit(some, given.service)]
    bad = [(one, vuln) for one in found for vuln in one.get("vulns", []) if vuln["id"] not in ACCEPTED]
    for one, vuln in bad:
        mended = ", ".join(vuln["fix_versions"]) or "no release yet"
        print(f"{one['name']} {one['version']}: {vuln['id']} {' '.join(vuln.get('aliases', []))}; mended in: {mended}")
    skipped = [one["name"] for one in found if "skip_reason" in one]
    print(f"{len(wanted)} pins of {given.lock.name}: {len(bad)} known vulnerabilities, {len(skipped)} packages not audited")
    if skipped:
        print(f"not audited: {', '.join(skipped)}. Remedy: ask another service about them: python scripts/audit.py --service osv")
    if bad:
        print("Remedy: uv lock -P NAME for each that is mended, then make lock; or ACCEPTED in scripts/audit.py, with the reason")
    return 1 if bad else 2 if skipped or len(found) < len(wanted) else 0


def pins(lock: Path) -> list[Pin]:
    """Return every package that comes from an index, in each version that some extra wants."""
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    return sorted({(one["name"], one["version"]) for one in packages if "registry" in one["source"]})


def without_doubles(wanted: list[Pin]) -> list[list[Pin]]:
    """Return lists in which no package comes twice, as pip-audit wants it."""
    lists: list[dict[str, str]] = []
    for name, version in wanted:
        into = next((one for one in lists if name not in one), None)
        if into is None:
            lists.append(into := {})
        into[name] = version
    return [list(one.items()) for one in lists]


def audit(some: list[Pin], service: str) -> list[dict[str, Any]]:
    """Return what pip-audit says of each pin. Exit 2 when it says nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pins.txt")
        file.write_text("".join(f"{name}=={version}\n" for name, version in some))
        # No resolving: the lock says all.
        command = [*tool(), "--disable-pip", "--no-deps", "-r", str(file), "-f", "json", "--progress-spinner", "off", "-s", service]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"not audited: pip-audit failed ({words})")
        print(f"Remedy: run this where {service} is reached, or with the other service: python scripts/audit.py --service osv")
        sys.exit(2)


def tool() -> list[str]:
    """Return pip-audit, in an environment of its own unless one is on PATH."""
    if shutil.which("pip-audit"):
        return ["pip-audit"]
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    return [uv, "tool", "run", "-q", f"pip-audit=={VERSION}"]


if __name__ == "__main__":
    sys.exit(main())
