#!/usr/bin/env python3
"""Keep uv.lock free of download hosts, so that it installs from any index or private mirror.

uv writes the host of every index and file into the lock. Versions and sha256 hashes are what pins a
build, so the hosts go: an index becomes https://index.invalid/simple and a file URL its bare file name.

    python scripts/lock_hosts.py            # after uv lock, uv add --no-sync or uv lock -P NAME
    python scripts/lock_hosts.py --check    # in CI: exit 1 when a host is left
"""

import re
import sys
from pathlib import Path

NOWHERE = "https://index.invalid/simple"
LOCK = Path(__file__).resolve().parent.parent / "uv.lock"


def neutralise(lock: str) -> str:
    """Return the lock without hosts, sizes and upload times; raise ValueError on a source that needs a host."""
    for line in lock.splitlines():
        if re.search(r"source = \{ (url|git) = ", line):
            raise ValueError(f"uv.lock pins a direct URL, which no mirror serves: {line.strip()}\n"
                             "Depend on a released version of the package instead.")  # fmt: skip
    lock = re.sub(r'registry = "[^"]*"', f'registry = "{NOWHERE}"', lock)
    lock = re.sub(r'url = "[a-z]+://[^"]*/([^"/]+)"', r'url = "\1"', lock)
    lock = re.sub(r", size = \d+", "", lock)
    return re.sub(r', upload-time = "[^"]*"', "", lock)


def main() -> int:
    before = LOCK.read_text()
    try:
        after = neutralise(before)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if "--check" in sys.argv[1:]:
        if before != after:
            print("uv.lock names a download host. Remedy: python scripts/lock_hosts.py", file=sys.stderr)
        return int(before != after)
    LOCK.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
