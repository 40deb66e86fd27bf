"""Servers' own arguments in a comparison: what changes the answer refuses it, speed and what nobody knows is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ncdemo.report.arguments import REMEDY, differing, given
from ncdemo.report.compare import Refused, Side, compare, table
from ncdemo.report.pairs import compare as pairs
from ncdemo.spec import BenchSpec, dump_spec
from ncdemo.spec.result_bench import Cell, SearchResult
from ncdemo.spec.server_args import ServerArg
from tests.report.test_compare import cell, side

FP8 = ServerArg(name="--quantization", value="fp8", changes="weights")
BATCH = ServerArg(name="--max-num-batched-tokens", value="8192", changes="speed")
NEW = ServerArg(name="--new-in-1.0", changes="unknown")


def arg(name: str, value: str | None, changes: str) -> ServerArg:
    return ServerArg(name=name, value=value, changes=changes)


def cells(engine: str, *args: ServerArg, count: int = 1) -> list[Cell]:
    return [cell(engine, i, 1.0, server_args=list(args)) for i in range(count)]


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        ([FP8], [], "weights (a --quantization fp8 and b nothing)"),
        ([FP8], [arg("--quantization", "awq", "weights")], "weights (a --quantization fp8 and b --quantization awq)"),
        (
            [FP8, arg("--kv-cache-dtype", "fp8", "cache format")],
            [NEW],
            "weights (a --quantization fp8 and b nothing); cache format (a --kv-cache-dtype fp8 and b nothing)",
        ),
        ([arg("--x", "3", "speculation"), arg("--y", "4", "speculation")], [arg("--x", "4", "speculation"), arg("--y", "3", "speculation")],
         "speculation (a --x 3, --y 4 and b --x 4, --y 3)"),
        ([arg("--enable-p", None, "prefix cache")], [arg("--no-enable-p", None, "prefix cache")],
         "prefix cache (a --enable-p and b --no-enable-p)"),
        ([FP8], [FP8], None),
        ([FP8], [arg("--quantization", "fp8", "weights"), BATCH, NEW], None),
        ([arg("--hf-overrides", '{"a": 1,"b":2}', "context")], [arg("--hf_overrides", '{"b": 2, "a": 1}', "context")], None),
        ([BATCH], [NEW], None),
    ],
)  # fmt: skip
def test_what_changes_the_answer_must_be_equal(ours: list, theirs: list, why: str | None) -> None:
    found = differing(cells("vllm", *ours), cells("vllm", *theirs))
    assert found == (why and f"the servers' arguments differ in {why}: {REMEDY}")


@pytest.mark.parametrize(
    ("ours", "theirs", "refused"),
    [
        ([FP8], [arg("--quant", "fp8", "weights")], False),
        ([FP8], [arg("--quant", "awq", "weights")], True),
        ([FP8], [], True),
        ([arg("--config", "{}", "speculation")], [arg("--steps", "3", "speculation"), arg("--k", "4", "speculation")], True),
        ([arg("--x", "3", "speculation"), arg("--y", "4", "speculation")],
         [arg("--k", "3", "speculation"), arg("--l", "4", "speculation")], True),
        ([BATCH], [arg("--chunked-prefill-size", "8192", "speed")], False),
    ],
)  # fmt: skip
def test_two_engines_are_alike_by_one_equal_value_alone(ours: list, theirs: list, refused: bool) -> None:
    assert bool(differing(cells("vllm", *ours), cells("sglang", *theirs))) is refused


def test_what_is_not_known_refuses_nothing() -> None:
    assert differing([cell("vllm", 0, 1.0)], cells("vllm", FP8)) is None


def test_a_comparison_and_the_page_refuse_alike() -> None:
    a, b = side("vllm", [1.0] * 6, server_args=[FP8]), side("sglang", [1.0] * 6, server_args=[])
    (refused,) = compare(a, b)
    assert refused == Refused("m", "8", f"the servers' arguments differ in weights (a --quantization fp8 and b nothing): {REMEDY}")
    (pair,) = pairs([*a.cells, *b.cells])
    assert pair.verdict.startswith("not comparable: the servers' arguments differ in weights (sglang nothing and vllm --quantization fp8)")


def test_highest_rates_are_refused_too() -> None:
    def searched(engine: str, *args: ServerArg) -> Side:
        found = [cell(engine, 0, 1.0, server_args=list(args), searched=True, rate_rps=4.0).model_copy(update={"setting": "searched"})]
        result = SearchResult(engine=engine, model="m", max_goodput_rate_rps=4.0, above_rps=4.1, attainment=0.99, runs=2, reason="")
        return Side("r", engine, tuple(found), (result,))

    assert not any(isinstance(one, Refused) for one in compare(searched("a", BATCH), searched("b")) if one.load == "search")
    assert any(isinstance(one, Refused) and REMEDY in one.why for one in compare(searched("a", FP8), searched("b")) if one.load == "search")


def test_what_only_one_was_given_is_named_above_the_table() -> None:
    assert [one.shown for one in given([BATCH, NEW, FP8], [FP8])] == [
        "a: its server alone was given --max-num-batched-tokens 8192 (speed), --new-in-1.0 (unknown effect)"
    ]
    assert given([BATCH], [BATCH]) == []
    a, b = Side("r", "x", tuple(cells("x")), server_args=(BATCH,)), Side("r", "y", tuple(cells("y")))
    assert table(a, b, []).splitlines()[1] == "a: its server alone was given --max-num-batched-tokens 8192 (speed)"


def compared(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ncdemo", "bench", "compare", *map(str, words)], capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """The canned server with nothing, with what is speed, with what ends answers, and with what no table has."""
    asked = {"plain": [], "paced": ["--itl-ms", "0.5"], "ends": ["--own-length", "64"], "fails": ["--fault", "http_500=0"]}
    folders = {}
    for name, words in asked.items():
        folders[name] = folder = tmp_path_factory.mktemp("runs") / name
        folder.mkdir()
        spec = {
            "mode": "server", "engines": ["echo"], "concurrency": [2], "prompts": {"count": 6}, "sampling": {"max_new_tokens": 6},
            "max_model_len": 512, "telemetry": {"sample_hz": 0.0, "mlflow_uri": None}, "client_processes": 1,
            "models": [{"name": str(tiny_model), "label": "canned"}], "server_args": {"echo": words},
        }  # fmt: skip
        (folder / "spec.yaml").write_text(dump_spec(BenchSpec.model_validate_json(json.dumps(spec))))
        done = subprocess.run(
            [sys.executable, "-m", "workloads.inference.bench", "--run", folder], capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        record = json.loads((folder / "result.json").read_text())
        for one in record["bench"]["cells"]:
            one["client"]["headroom"] = 1.0  # whether this machine's other work left the client enough is not what is asked here
        (folder / "result.json").write_text(json.dumps(record))
    return folders


def test_the_command_refuses_what_changes_the_answer(runs: dict[str, Path]) -> None:
    done = compared(runs["plain"], runs["ends"])
    assert done.returncode == 1
    why = "refused: the servers' arguments differ in sampling (a nothing and b --own-length 64): give both the same in server_args, or read"
    assert why in done.stdout
    assert "b: its server alone was given --own-length 64 (sampling)" in done.stdout


def test_the_command_compares_and_names_what_is_speed_or_unknown(runs: dict[str, Path]) -> None:
    paced, unknown = compared(runs["paced"], runs["plain"]), compared(runs["plain"], runs["fails"])
    assert (paced.returncode, unknown.returncode) == (0, 0)
    assert paced.stdout.splitlines()[1] == "a: its server alone was given --itl-ms 0.5 (speed)"
    assert "output_tokens_per_s" in paced.stdout
    assert unknown.stdout.splitlines()[1] == "b: its server alone was given --fault http_500=0 (unknown effect)"
    rows = json.loads(compared(runs["paced"], runs["plain"], "--json").stdout)
    assert rows[0] == {
        "kind": "arguments", "side": "a", "arguments": [{"name": "--itl-ms", "value": "0.5", "changes": "speed"}],
    }  # fmt: skip
    assert any(row["kind"] == "difference" for row in rows)


def test_a_run_of_an_older_version_is_named_as_unknown(runs: dict[str, Path], tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(runs["ends"], old)
    record = json.loads((old / "result.json").read_text())
    for one in record["bench"]["cells"]:
        del one["server_args"]
    (old / "result.json").write_text(json.dumps(record))
    done = compared(old, runs["plain"])
    assert done.returncode == 0
    assert done.stdout.splitlines()[1] == "a: its server alone was given --own-length 64 (unknown effect)"
