"""Write docs/reference/ from the source: specs, results, commands, environment variables, metrics, VM sizes.

.venv/bin/python -m scripts.reference            # `make docs`
.venv/bin/python -m scripts.reference --check    # exit 1 where a page differs from what would be written

Everything on these pages is said once, in the code: correct it there and write them again.
"""

import sys

from ncdemo.spec import SPECS
from scripts.reference import commands, results, specs, tables

FOLDER = tables.ROOT / "docs" / "reference"


def main() -> None:
    """Write every page that differs, or with --check name it."""
    wanted = pages()
    there = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    stale = [name for name in sorted(wanted.keys() | there.keys()) if wanted.get(name) != there.get(name)]
    if "--check" in sys.argv[1:]:
        sys.exit("\n".join(f"docs/reference/{name} isn't what the source says; run: make docs" for name in stale) or 0)
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name])
        else:
            (FOLDER / name).unlink()
        print(f"docs/reference/{name}")


def pages() -> dict[str, str]:
    """Return file -> text of every page."""
    found = {f"{kind}-spec.md": specs.spec_page(kind) for kind in SPECS}
    found |= {"results.md": results.results_page(), "cli.md": commands.cli_page(), "environment.md": tables.environment_page()}
    return found | {"metrics.md": tables.metrics_page(), "vm-sizes.md": tables.sizes_page()}


if __name__ == "__main__":
    main()
