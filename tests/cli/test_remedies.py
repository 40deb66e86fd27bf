"""Every error message says what to do: all that the source can raise, read from it, and many of them provoked."""

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ncdemo.cli import main
from tests.remedy import says_what_to_do
from tests.spec.test_messages import OVERRIDES, TABLE

ROOT = Path(__file__).resolve().parents[2]
ERRORS = {"SpecError", "NotThere", "Unreachable", "Refused", "LoggedOut", "UsageError", "ClickException", "BadParameter"}
"""What a user sees; beside them, the ValueErrors of spec's models, which become SpecErrors, and Stack.mistake."""

INTERNAL = {
    "ncdemo/spec/ledger.py": "torn",  # the line is dropped, or the error around it says what to do
    "ncdemo/spec/run_folder.py": "its process was started on another machine, in another container or before a reboot",
    "ncdemo/spec/stack.py": "jobs.{}.{}",  # the parts are _misfit's, and are provoked below
    "workloads/data/download_dataset.py": "{} (HF_HUB_OFFLINE is set)",  # after _offline's own remedy
}
"""Messages that reach no user as they stand."""
MORE = {"no process is on record", "{} answers {}", "{} does not answer ({})", "{} asked for a pause", "{} of {} points were not taken"}
"""The first is one of run_folder.py's too; the others are where figures go, and who sends them says what becomes of these."""


def template(node: ast.AST) -> str:
    """Return a message as far as the source says it; what only a run knows is {}, and {remedy} where its name says that."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    if isinstance(node, ast.IfExp):
        return f"{template(node.body)} | {template(node.orelse)}"
    value = ast.unparse(node.value if isinstance(node, ast.FormattedValue) else node)
    return "{remedy}" if value.rpartition(".")[2].lower() == "remedy" else "{}"


def raised(house: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / house).rglob("*.py")):
        source = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if (name in ERRORS or (name == "ValueError" and source.startswith("ncdemo/spec/"))) and node.args:
                yield f"{source}:{node.lineno}", template(node.args[0])
            elif name == "mistake" and len(node.args) > 1:
                yield f"{source}:{node.lineno}", template(node.args[1])


def test_what_the_source_can_raise_says_what_to_do() -> None:
    found = [one for house in ("ncdemo", "workloads") for one in raised(house)]
    internal = {*INTERNAL.values(), *MORE}
    silent = [
        f"{where}: {text}"
        for where, text in found
        if text.strip("{}: \n") and "{remedy}" not in text and text not in internal and not says_what_to_do(text)
    ]
    assert not silent, "\n" + "\n".join(silent)
    assert len(found) > 300
    assert internal <= {text for _, text in found}, "an exception for a message that is no more"


@pytest.mark.parametrize(
    "text", ["runs/x: no such folder", "there is nothing to cancel", "the file is torn", "it is given twice", "HTTP 403"]
)
def test_a_message_that_only_complains_is_told_apart(text: str) -> None:
    assert not says_what_to_do(text)


def test_every_mistake_in_a_spec_says_what_to_do() -> None:
    lines = [line for *_, message in [*TABLE, *OVERRIDES] for line in message.split("\n")]
    assert len(lines) > 150
    assert not [line for line in lines if not says_what_to_do(line)]


RUN = "kind: train\n"
MISTAKES: list[tuple[list[str], str | None]] = [
    # The words of a command, and what the file {file} holds
    (["trian"], None),
    (["train", "accelerate"], None),
    (["train", "accelerate", "-c", "no.yaml"], None),
    (["train", "accelerate", "-c", "{file}"], "kind: bench\n"),
    (["train", "accelerate", "-c", "{file}", "--nproc", "0"], RUN),
    (["train", "accelerate", "-c", "{file}", "--set", "train.max_step=2"], RUN),
    (["train", "accelerate", "-c", "{file}", "--colour"], RUN),
    (["train", "compare"], None),
    (["train", "compare", "{folder}", "{folder}"], None),
    (["bench", "run", "-c", "{file}"], ""),
    (["bench", "run", "-c", "{file}"], "a: [1"),
    (["bench", "compare", "{folder}", "{folder}"], None),
    (["bench", "export", "{folder}"], None),
    (["report", "nowhere"], None),
    (["report", "{folder}"], None),
    (["report", "{file}"], ""),
    (["watch", "nowhere"], None),
    (["jobs", "logs", "tune"], None),
    (["jobs", "wait", "tune"], None),
    (["jobs", "cancel", "tune", "--yes"], None),
    (["jobs", "ls", "-n", "x"], None),
    (["jobs", "ls", "--stack", "aks-dev", "--context", "x"], None),
    (["jobs", "ls", "--stack", "nope"], None),
    (["jobs", "ls", "--stack", "aks-dev"], None),
    (["jobs", "ls", "--context", "nowhere"], None),
    (["results", "ls"], None),
    (["results", "ls", "--account", "https://x"], None),
    (["results", "ls", "--uri", "s3://b/x", "--account", "stx"], None),
    (["metrics", "send"], None),
    (["metrics", "export", "nowhere", "--gateway", "h"], None),
    (["metrics", "export", "nowhere", "--gateway", "http://h"], None),
    (["stack", "preview", "nope"], None),
    (["stack", "preview", "{file}"], "config: 3\n"),
    (
        ["stack", "preview", "{file}"],
        "config:\n  ncdemo:pools: [{name: a, max_count: 1}]\n  ncdemo:jobs: [{name: t, config: x, nodes: 2}]\n",
    ),
    (["stack", "preview", "{file}"], "config:\n  ncdemo:hf_token: abc\n"),
    (["stack", "preview", "{file}"], "config:\n  ncdemo:alert_webhook: https://hooks.example/x\n"),
    (["stack", "new", "x y"], None),
    (["stack", "new", "trial", "--budget", "10"], None),
    (["stack", "expire", "--json", "--destroy"], None),
    (["stack", "up", "aks-dev"], None),
    (["cost", "nope"], None),
    (["cost", "{folder}"], None),
    (["cost", "aks-dev", "--size", "Standard_NC40ads_H100_v5"], None),
    (["image", "push", "train"], None),
    (["image", "build", "train", "--stack", "nope"], None),
    (["doctor", "azure", "--region", "??"], None),
    (["doctor", "cluster", "vm-dev"], None),
    (["spec", "schema", "nope"], None),
    (["spec", "check", "nowhere.yaml"], None),
    (["terraform", "vars", "nope"], None),
    (["data", "nope"], None),
    (["demo", "--resume", "nowhere"], None),
]


@pytest.mark.parametrize(("words", "text"), MISTAKES, ids=lambda one: " ".join(one) if isinstance(one, list) else "")
def test_a_mistake_on_the_command_line_says_what_to_do(
    words: list[str], text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "Pulumi.x.yaml"
    if text is not None:
        file.write_text(text)
    for name in [*os.environ]:
        if name.startswith(("NCDEMO_", "AZURE_", "ARM_", "KUBECONFIG")):
            monkeypatch.delenv(name)
    for name, value in {"HOME": tmp_path, "NCDEMO_RUNS": tmp_path / "runs", "PATH": "/nowhere"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["ncdemo", *(word.format(file=file, folder=tmp_path / "folder") for word in words)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr().err
    assert end.value.code == 2, said
    assert "Traceback" not in said
    error = said.partition("Error: ")[2]
    # Of click's own errors, the line above them names the help.
    assert error
    assert says_what_to_do(error) or "--help' for help" in said, said
