"""The documentation: the reference says what the source says, every page is in the index, every link leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
REFERENCE = DOCS / "reference"
LINK = re.compile(r"(?<!!)\[[^\]]*(?:\[\][^\]]*)*\]\(([^)\s]+)\)")


def test_the_reference_is_what_the_source_says() -> None:
    """Renew with: make docs"""
    done = subprocess.run([sys.executable, "-m", "scripts.reference", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_reference_has_every_key_command_and_variable() -> None:
    """Not by the script that writes it: from the schemas, the goldens of --help and .env.example."""
    from ncdemo.spec import SPECS

    for kind, model in SPECS.items():
        text = (REFERENCE / f"{kind}-spec.md").read_text()
        schema = model.model_json_schema()
        keys = {key for one in [schema, *schema["$defs"].values()] for key in one["properties"]}
        assert keys <= set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    commands = {golden.stem for golden in (ROOT / "tests" / "golden" / "help").glob("*.txt")} - {"ncdemo"}
    headings = re.findall(r"^## ncdemo ([\w -]+)$", (REFERENCE / "cli.md").read_text(), re.M)
    assert {heading.replace(" ", "-") for heading in headings} == commands
    names = re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.M)
    assert re.findall(r"^\| `(\w+)` \| \w", (REFERENCE / "environment.md").read_text(), re.M) == names


# Set by ncdemo for its own processes and units; nobody else has a reason to.
OWN = {"NCDEMO_PROGRESS", "NCDEMO_SERVER", "NCDEMO_CLIENT_ID", "NCDEMO_IDLE_MINUTES", "NCDEMO_FILES", "NCDEMO_FILES_DIR"}


def test_every_variable_that_the_code_reads_is_in_the_example() -> None:
    named = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.M))
    files = [
        path for house in ("ncdemo", "workloads", "scripts") for path in (ROOT / house).rglob("*") if path.suffix in (".py", ".sh", "")
    ]
    read = {name for path in files if path.is_file() for name in re.findall(r"\bNCDEMO_[A-Z_]*[A-Z]\b", path.read_text())}
    assert len(read) > 15
    assert read - OWN <= named


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())}
    assert linked >= set(PAGES) - {index}
    assert len(PAGES) > 20
