"""What a stack says of itself once it exists: its outputs, from the Pulumi CLI and the backend that it is logged in to.

outputs(path_of_the_stack_file)["storage_account"]
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError

TIMEOUT_S = 60


def outputs(stack_file: Path, instead: str) -> dict[str, Any]:
    """Return a stack's outputs. `instead` is how to do without them. Raise SpecError when Pulumi can't say."""
    name, root = stack_file.name.removeprefix("Pulumi.").rpartition(".")[0], stack_file.resolve().parent.parent
    if shutil.which("pulumi") is None:
        raise SpecError(f"--stack {name}: the Pulumi CLI, which knows the stack's outputs, isn't installed; install it, or {instead}")
    command = ["pulumi", "stack", "output", "--json", "--stack", name]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise SpecError(
            f"--stack {name}: `{' '.join(command)}` gave no answer in {TIMEOUT_S} s; see `pulumi whoami`, or {instead}"
        ) from None
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1].removeprefix("error: ")
        raise SpecError(f"--stack {name}: {words}; make it with `ncdemo stack up {name}`, or {instead}")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found:
        raise SpecError(f"--stack {name}: has no outputs yet; finish it with `ncdemo stack up {name}`, or {instead}")
    return found


def output(found: dict[str, Any], key: str, stack_file: Path) -> Any:
    """Return one output. Raise SpecError when an older ncdemo made the stack, or it was never finished."""
    if key not in found:
        name = stack_file.name.removeprefix("Pulumi.").rpartition(".")[0]
        raise SpecError(f"--stack {name}: has no output {key}; bring the stack up to date with `ncdemo stack up {name}`")
    return found[key]
