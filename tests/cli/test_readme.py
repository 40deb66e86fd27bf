"""Every ncdemo command that the README shows is one that ncdemo takes: those that start work are run dry."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
COMMANDS = [line.split("#")[0].split() for block in BLOCKS for line in block.splitlines() if line.startswith("ncdemo ")]


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 5
    assert "make setup" in README
    assert "make demo" in README


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_readme_command(command: list[str]) -> None:
    args = command[1:]
    if args[0] == "report":
        pytest.skip("names runs of the reader's own; tests/report covers it")
    if args[0] in ("train", "bench") and "--dry-run" not in args:
        args.append("--dry-run")
    done = subprocess.run([sys.executable, "-m", "ncdemo", *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert f"\n{target}:" in makefile
