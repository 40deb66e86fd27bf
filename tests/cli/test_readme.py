"""Every ncdemo command that README and docs show is one that ncdemo takes: those that change anything are run dry."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))]
BLOCKS = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page, flags=re.S)]
LINES = [line.split(" #")[0] for block in BLOCKS for line in block.splitlines() if line.startswith("ncdemo ")]
COMMANDS = [shlex.split(line) for line in dict.fromkeys(LINES)]


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 5
    assert "make setup" in README
    assert "make demo" in README


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_of_the_docs(command: list[str], tmp_path: Path) -> None:
    args = command[1:]
    if args[:2] == ["doctor", "azure"] or {"--live", "--azure"} & set(args):
        pytest.skip("asks Azure; tests/cli and tests/infra run it against a stand-in")
    if args[:2] == ["doctor", "cluster"] or (args[0] in ("jobs", "results") and {"--stack", "--context", "--account"} & set(args)):
        pytest.skip("asks a cluster, Azure or Blob; tests/operate runs it against stand-ins and Azurite")
    if args[0] == "report" or (args[0] == "cost" and args[1].startswith("runs/")):
        pytest.skip("names runs of the reader's own; tests/report covers it")
    if args[:2] == ["stack", "preview"] and importlib.util.find_spec("pulumi") is None:
        pytest.skip("the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")
    changes = args[0] in ("train", "bench") or "--destroy" in args or args[:2] in (["stack", "up"], ["stack", "destroy"], ["stack", "new"])
    if changes and "--dry-run" not in args:
        args.append("--dry-run")
    if "--yaml" in args:
        args[args.index("--yaml") + 1] = str(tmp_path / "out")
    done = subprocess.run([sys.executable, "-m", "ncdemo", *args], capture_output=True, text=True, timeout=60)
    # Doctor's code says how this machine is, not whether the command is right.
    assert done.returncode in ((0, 1) if args[0] == "doctor" else (0,)), done.stderr
    assert done.stdout + done.stderr


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page)} | set(
        re.findall(r"^make ([a-z-]+)", README, re.M)
    ):
        assert f"\n{target}:" in makefile
