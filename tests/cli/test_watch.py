"""ncdemo watch on runs that go on, end, fail and are killed: real processes write the folders."""

import datetime
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from ncdemo.cli.watch_gpus import troubles
from ncdemo.cli.watch_screen import line, screen, sparkline
from ncdemo.report.watched import MOST_LOSSES, Watched
from ncdemo.spec import BenchSpec, TrainSpec, dump_spec, load_spec
from ncdemo.spec.result import StepRecord
from ncdemo.spec.run_folder import note_process
from ncdemo.spec.sweep import cells

WRITER = """
import sys, time
from pathlib import Path
from ncdemo.spec import TrainSpec, load_spec
from ncdemo.spec.result import EvalRecord, StepRecord
from workloads.run import open_run
folder, seconds, ends = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
spec = load_spec(folder / "spec.yaml", TrainSpec)
with open_run(folder, spec) as run:
    run.append("evals.jsonl", EvalRecord(step=0, end_s=run.now(), loss=2.5, perplexity=12, token_accuracy=0.4, target_tokens=9, eval_time_s=0.1))
    for n in range(1, 6):
        time.sleep(seconds / 5)
        run.append("steps.jsonl", StepRecord(step=n, end_s=run.now(), step_time_s=seconds / 5, loss=3 / n, learning_rate=1e-3, grad_norm=1,
                   tokens=900, target_tokens=600, examples=4, tokens_per_s=900 / seconds * 5))
        with (folder / "log.txt").open("a") as log:
            log.write(f"\\x1b[31mstep {n}\\x1b[0m is done\\n")
    if ends == "fails":
        raise ValueError("the data ran out")
    if ends == "torn":
        with (folder / "steps.jsonl").open("a") as steps:
            steps.write('{"step": 6, "end')
        time.sleep(60)
"""
COMMAND = [sys.executable, "-m", "ncdemo", "watch"]


def prepared(folder: Path, **telemetry: object) -> Path:
    folder.mkdir(parents=True)
    spec = TrainSpec.model_validate({"train": {"max_steps": 5}, "telemetry": {"mlflow_uri": None, "sample_hz": 20, **telemetry}})
    (folder / "spec.yaml").write_text(dump_spec(spec))
    return folder


def writing(folder: Path, seconds: float, ends: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WRITER, folder, str(seconds), ends], stderr=subprocess.DEVNULL)


def until(happened, within_s: float = 20):
    end = time.monotonic() + within_s
    while not (found := happened()):
        assert time.monotonic() < end, f"didn't happen within {within_s} s"
        time.sleep(0.05)
    return found


def text(run: Watched, width: int = 100) -> str:
    console = Console(width=width, highlight=False, markup=False, file=io.StringIO())
    console.print(screen(run))
    return "".join(row.rstrip() + "\n" for row in console.file.getvalue().splitlines())


def seen(folder: Path) -> Watched:
    run = Watched(folder)
    run.update()
    return run


def test_a_run_is_followed_to_its_end_in_plain_lines(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "runs" / "r")
    with writing(folder, 3, "well"):
        until((folder / "result.json").is_file)
        done = subprocess.run([*COMMAND, folder, "--every-s", "0.2"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert len(lines) >= 4
    assert "running" in lines[0]
    assert re.search(r"finished  5 of 5 steps  loss 0\.6  tokens/s 1,500  held-out loss 2\.5  CPU .* %.*  memory .* [GM]iB", lines[-1])
    assert any(re.search(r"running  [1-4] of 5 steps, .* s left|running  [1-4] of 5 steps", each) for each in lines)


def test_a_terminal_shows_one_screen_that_is_drawn_again(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "runs" / "r")
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    with writing(folder, 3, "well"):
        until((folder / "result.json").is_file)
        with subprocess.Popen([*COMMAND, folder, "--every-s", "0.2"], stdout=follower, stderr=follower, env=env) as shown:
            os.close(follower)
            output = b"".join(read(leader))
            assert shown.wait(20) == 0
    drawn = output.decode()
    assert drawn.count("\x1b[2K") > 10, "lines are wiped and drawn again"
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn[drawn.rindex("\x1b[2K") :])
    for part in ("finished", "5 of 5 steps", "held-out loss", "step 5 is done", "━━━━"):
        assert part in last


def read(leader: int) -> Iterator[bytes]:
    while select.select([leader], [], [], 30)[0]:
        try:
            yield os.read(leader, 65536)
        except OSError:  # the other end is closed
            return


def test_a_run_that_fails_is_exit_1_with_its_reason_and_log(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "runs" / "r")
    writing(folder, 0.5, "fails").wait(60)
    done = subprocess.run([*COMMAND, folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ValueError: the data ran out" in done.stdout
    assert "step 5 is done" in done.stdout
    assert "\x1b" not in done.stdout, "what a log has of colours stays there"


def test_a_killed_run_is_told_from_one_that_lives(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "runs" / "r")
    with writing(folder, 0.5, "torn") as process:
        until(lambda: (folder / "steps.jsonl").exists() and "end" in (folder / "steps.jsonl").read_text().splitlines()[-1][-6:])
        until(lambda: (folder / "samples.jsonl").exists() and (folder / "samples.jsonl").read_text().count("\n") > 2)
        alive = seen(folder)
        assert (alive.done, alive.running, alive.gone) == (5, True, False), "the torn step isn't counted"
        process.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    for path in folder.iterdir():  # a minute later
        os.utime(path, (time.time() - 60, time.time() - 60))
    assert seen(folder).gone
    done = subprocess.run([*COMMAND, folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.search(
        r"It says it runs, but wrote nothing for 6\d\.?\d* s: it was killed, or its machine is gone\.", " ".join(done.stdout.split())
    )
    once = subprocess.run([*COMMAND, folder, "--once"], capture_output=True, text=True, timeout=60)
    assert (once.returncode, once.stderr) == (0, "")
    assert once.stdout.startswith("r  train  gone  ")


def test_a_short_run_that_ended_hides_none_that_is_under_way_and_one_that_was_killed_does_not_count(tmp_path: Path) -> None:
    long, short, killed = (prepared(tmp_path / "runs" / name) for name in ("long", "short", "killed"))

    def shown() -> str:
        done = subprocess.run(
            [*COMMAND, "--once"], capture_output=True, text=True, env={**os.environ, "NCDEMO_RUNS": str(tmp_path / "runs")}
        )
        return done.stdout.splitlines()[0]

    with writing(long, 60, "well") as process:
        until(lambda: (long / "result.json").exists())
        writing(short, 0.1, "well").wait()
        assert "long" in shown()
        note_process(long, process.pid)
        assert "long" in shown()
        with writing(killed, 60, "well") as victim:
            until(lambda: (killed / "result.json").exists())
            note_process(killed, victim.pid)
            assert "killed" in shown(), "it began last"
            victim.kill()
        assert "long" in shown()
        process.kill()
    ended = json.loads((short / "result.json").read_text())
    (short / "result.json").write_text(json.dumps(ended))
    assert "short" in shown(), "none is under way: the one that ended last"


def test_the_newest_run_is_taken_where_none_is_named(tmp_path: Path) -> None:
    for n, name in enumerate(("old", "new")):
        folder = prepared(tmp_path / "runs" / name, sample_hz=0)
        writing(folder, 0.1, "well").wait(60)
        os.utime(folder / "result.json", (1e9 + n, 1e9 + n))
    done = subprocess.run([*COMMAND, "--once"], capture_output=True, text=True, env={**os.environ, "NCDEMO_RUNS": str(tmp_path / "runs")})
    assert done.stdout.startswith("new  train  finished")


def test_a_benchmark_shows_its_cells_and_requests(bench_run) -> None:
    folder = bench_run(flaw=True)
    record = json.loads((folder / "result.json").read_text())
    with (folder / "cells.jsonl").open("w") as ledger:
        ledger.write(json.dumps({"spec_hash": record["spec_hash"]}) + "\n")
        for n, cell in enumerate(record["bench"]["cells"][:5]):
            ledger.write(json.dumps({"key": str(n), "cell": cell, "requests_bytes": 0, "end_s": 1.0, "wall_s": 1.0}) + "\n")
        ledger.write('{"key": "5", "cell": {"engi')
    (folder / "result.json").write_text(json.dumps(record | {"status": "running", "duration_s": None, "bench": None}))
    run = seen(folder)
    shown = text(run)
    assert "bench  bench  running" in shown
    assert "5 of 8 cells" in shown
    assert re.search(r"vllm requests +63, 1 failed\n", shown)
    assert re.search(r"vllm +concurrency 8 +0 +[\d,.]+ +[\d,.]+ ms +[\d,.]+ ms +[\d.]+ +1\n", shown)
    assert "output tokens/s" in shown
    assert re.search(r"vllm engine +0 running, 0 waiting, key-value cache 0(\.0)? %\n", shown)
    assert "5 of 8 cells" in line(run)


def test_a_benchmark_shows_the_cell_that_it_is_at(bench_run) -> None:
    folder = bench_run()
    spec = load_spec(folder / "spec.yaml", BenchSpec)
    record = json.loads((folder / "result.json").read_text())
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=100)
    (folder / "result.json").write_text(
        json.dumps(record | {"status": "running", "duration_s": None, "bench": None, "started_at": began.isoformat()})
    )
    plan, measured = cells(spec), record["bench"]["cells"]
    entries = [
        {"key": planned.key, "cell": cell, "requests_bytes": 0, "end_s": 10.0 * (n + 1), "wall_s": 10.0 + n}
        for n, (planned, cell) in enumerate(zip(plan, measured, strict=True))
    ]

    def at(finished: int) -> str:
        lines = [{"spec_hash": spec.spec_hash()}, *entries[:finished]]
        (folder / "cells.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return text(seen(folder), width=200)

    assert re.search(rf"cell +{re.escape(plan[0].key)}, 1\d\d s since the start\n", at(0))
    assert re.search(rf"cell +{re.escape(plan[5].key)}, 5\d(\.\d)? s since the last one ended; its other repeats took 11 s\n", at(5))
    assert plan[-1].key not in at(len(plan)), "none is left"


def test_gpus_that_answer_and_one_that_is_lost(train_run) -> None:
    run = seen(train_run("r", gpus=2, lost=1))
    shown = text(run)
    assert re.search(r" +busy +memory +power +temp\.\nGPU +% +GiB +W +°C\n +0 +\d\d +[\d.]+ +\d+ +60\n", shown)
    assert re.search(r"\n +1 +- +- +- +- +NVML says: GPU is lost\n", shown)
    assert re.search(r"GPU 0 \d\d\.\d %, [\d.]+ GiB  GPU 1 NVML says: GPU is lost$", line(run))


def eight_gpus(folder: Path) -> Path:
    """Add 12 s of samples: of GPU 1 every trouble, of GPU 2 and 3 what is no trouble; slow fields in every other, as the sampler does."""
    fields = {"utilization_pct": 100, "memory_used_bytes": 79 << 30, "power_w": 698.6, "temperature_c": 71, "sm_clock_hz": 1.4e9}
    lines = (folder / "samples.jsonl").read_text().splitlines()
    began = json.loads(lines[-1])
    for i in range(24):
        gpus = [{"index": n, **fields, "throttle_reasons": [], "xids": []} for n in range(8)]
        gpus[1] |= {"throttle_reasons": ["hw_slowdown", "hw_thermal", "power_cap"], "xids": [79] if i == 3 else [63] * (i in (4, 5))}
        gpus[2] |= {"throttle_reasons": ["gpu_idle", "clocks_setting"]}
        gpus[3] |= {"throttle_reasons": ["power_cap"], "xids": [45] if i == 3 else []}
        if i % 2:
            for n, gpu in enumerate(gpus):
                gpu |= {"pcie_tx_bytes_per_s": 1.24e9, "pcie_rx_bytes_per_s": 25e9, "ecc_uncorrected": 5 + 2 * (n == 1 and i > 7)}
                gpu |= {"nvlink_tx_bytes": int(i / 2 * 371e9), "nvlink_rx_bytes": int(i / 2 * 2e6)}
        lines.append(json.dumps(began | {"time_s": began["time_s"] + 0.5 + i / 2, "gpus": gpus}))
    (folder / "samples.jsonl").write_text("".join(each + "\n" for each in lines))
    return folder


@pytest.mark.parametrize("width", [80, 100, 120])
def test_eight_gpus_with_what_is_wrong_fit_a_terminal(train_run, width: int) -> None:
    shown = text(seen(eight_gpus(train_run("r"))), width)
    rows = shown.splitlines()
    table = rows[next(i for i, row in enumerate(rows) if "busy  memory" in row) :]
    assert max(map(len, table)) <= width
    assert re.search(r"^  0   100      79    699     71     1\.2/25    371/<0\.01$", table[2])
    numbered = [row for row in table if re.match(r"  \d ", row)]
    assert [row.split()[0] for row in numbered] == list("01234567")
    assert numbered[3].endswith("XID 45, at its power cap") or width == 80
    told = " ".join(word for row in table for word in row.split())
    assert "2 uncorrected ECC, slowed by hardware and heat, at its power cap" in told or width == 80
    assert len(table) - 2 - len(numbered) <= {80: 5, 100: 2, 120: 1}[width], "only what is wrong takes more lines"
    assert not re.search(r"slowed|ECC|XID|cap", numbered[0] + numbered[-1])


@pytest.mark.parametrize("width", [40, 56, 71])
def test_a_narrow_terminal_lacks_links_before_it_lacks_what_is_wrong(train_run, width: int) -> None:
    rows = text(seen(eight_gpus(train_run("r"))), width).splitlines()
    table = rows[next(i for i, row in enumerate(rows) if "busy  memory" in row) :]
    assert max(map(len, table)) <= width
    assert re.search(r"^  0   100      79    699     71 *$", table[2])
    told = " ".join(word for row in table for word in row.split())
    assert "GPU 1: XID 63 x2, XID 79, 2 uncorrected ECC, slowed by hardware and heat, at its power cap" in told
    assert "GPU 3: XID 45, at its power cap" in told
    assert not re.search(r"GPU [04567]:", told)


def nodes(train_run, count: int, gpus: int, here: int | None = None, **changes) -> Path:
    """Make a run on so many nodes, of which the folders of `here` are here; GPU 1 of the second has an XID."""
    folder = train_run("r", gpus=gpus, **changes)
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(environment | {"nodes": count}))
    for rank in range(1, count if here is None else here):
        other = train_run(f"r-node{rank}", gpus=gpus, seed=rank + 1)
        last = json.loads((other / "samples.jsonl").read_text().splitlines()[-1])
        if rank == 1:
            last["gpus"][1] |= {"xids": [79], "utilization_pct": 0.0}
        with (other / "samples.jsonl").open("a") as lines:
            lines.write(json.dumps(last) + "\n")
    return folder


def test_two_nodes_have_a_row_each_and_their_gpus_the_node(train_run) -> None:
    train_run("r-node2", gpus=2)
    run = seen(nodes(train_run, 2, 2))
    shown = text(run)
    for rank in (0, 1):
        assert re.search(rf"\nnode {rank} +CPU \d\d\.\d %, the run [\d.]+ cores; memory [\d.]+ GiB, the run [\d.]+ GiB\n", shown)
    assert "node 2" not in shown, "of an earlier attempt with more nodes"
    table = shown[shown.index("busy  memory") :]
    assert [row.split()[:2] for row in table.splitlines()[2:6]] == [["0", "0"], ["0", "1"], ["1", "0"], ["1", "1"]]
    assert re.search(r"\n +1 +1 +0 .* XID 79\n", shown)
    assert "node 1 GPU 1: XID 79" in text(run, 56)
    assert re.search(r"node 0 GPU 1 \d\d\.\d %, [\d.]+ GiB  node 1 GPU 0 .*  node 1 GPU 1 0\.0 %, [\d.]+ GiB, XID 79$", line(run))


@pytest.mark.parametrize("width", [56, 80])
def test_eight_nodes_of_eight_gpus_have_a_row_each_with_what_is_wrong(train_run, width: int) -> None:
    run = seen(nodes(train_run, 8, 8))
    rows = text(run, width).splitlines()
    table = rows[next(i for i, row in enumerate(rows) if "busy" in row) + 2 :]
    assert [row.split()[:2] for row in table[:8]] == [[str(rank), "8"] for rank in range(8)]
    assert re.match(r"   1     8   0-\d\d ", table[1])
    assert "GPU 1: XID 79" in (table[1] if width == 80 else "\n".join(table[8:]))
    assert re.search(r"node 1 GPUs 0-\d\d %  node 1 GPU 1 XID 79  node 2 GPUs \d\d-\d\d %  node 3", line(run))


def test_nodes_whose_samples_are_with_themselves_are_said_to_be(train_run) -> None:
    shown = text(seen(nodes(train_run, 4, 1, here=1)), 120)
    assert re.search(r"\nnode 0 +CPU", shown)
    assert re.search(r"\nnodes 1 to 3 +not here while it goes on: the samples lie on the node, and come with the results\n", shown)


def test_a_node_that_fell_silent_is_said_to_have(train_run) -> None:
    folder = nodes(train_run, 2, 2, status="running", duration_s=None, train=None)
    os.utime(folder.with_name("r-node1") / "samples.jsonl", (time.time() - 100, time.time() - 100))
    shown = text(seen(folder))
    assert re.search(r"\nnode 1 +CPU .*; no sample for 100 s\n", shown)
    assert shown.count("no sample for") == 1


def test_colours_and_the_line_tell_what_is_alarming_from_what_is_usual(train_run) -> None:
    run = seen(eight_gpus(train_run("r")))
    sample = {gpu["index"]: dict(troubles(run, gpu)) for gpu in run.sample["gpus"]}
    alarming = ["XID 63 x2", "XID 79", "2 uncorrected ECC", "slowed by hardware and heat"]
    assert sample[1] == {**dict.fromkeys(alarming, "red"), "at its power cap": "yellow"}
    assert sample[3] == {"XID 45": "yellow", "at its power cap": "yellow"}
    assert sample[0] == sample[2] == {}
    assert f"GPU 1 100.0 %, 79 GiB, {', '.join(alarming)}  GPU 2 100.0 %, 79 GiB  GPU 3 100.0 %, 79 GiB  GPU 4" in line(run)


def test_nvlink_is_a_mean_of_ten_seconds_and_begins_again_with_its_counter(train_run) -> None:
    folder = eight_gpus(train_run("r"))
    run = seen(folder)
    assert run.nvlink_bytes_per_s(0) == pytest.approx((371e9, 2e6))
    assert run.nvlink_bytes_per_s(8) is None
    last = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    for at, sent in ((1, 0), (2, 10_000), (3, 40_000)):
        with (folder / "samples.jsonl").open("a") as samples:
            gpu = {"index": 0, "nvlink_tx_bytes": sent, "nvlink_rx_bytes": 0}
            samples.write(json.dumps({"time_s": last["time_s"] + at, "gpus": [gpu]}) + "\n")
        run.update()
        assert (run.nvlink_bytes_per_s(0) is None) is (at == 1)
    assert run.nvlink_bytes_per_s(0) == (20_000, 0)


def test_the_last_steps_mfu_is_shown_where_it_is_known(train_run) -> None:
    folder = train_run("r")
    assert "MFU" not in text(seen(folder))
    last = json.loads((folder / "steps.jsonl").read_text().splitlines()[-1])
    with (folder / "steps.jsonl").open("a") as steps:
        steps.write(json.dumps(last | {"mfu": 0.4123}) + "\n")
    assert re.search(r"MFU +41\.2 %\n", text(seen(folder)))
    assert "MFU 41.2 %" in line(seen(folder))


def test_a_search_and_epochs_have_no_total(train_run) -> None:
    folder = train_run("r")
    (folder / "spec.yaml").write_text("kind: train\ntrain: {epochs: 2}\n")
    assert seen(folder).total is None
    assert "60 steps" in text(seen(folder))
    (folder / "spec.yaml").write_text("kind: bench\nmode: server\nengines: [vllm]\nsearch: {}\nprompts: {count: 500}\n")
    run = seen(folder)
    assert (type(run.spec), run.total) == (BenchSpec, None)
    (folder / "spec.yaml").write_text("kind: bench\nname: [")
    assert (seen(folder).spec, seen(folder).total) == (None, None)


def test_very_many_losses_are_thinned_and_drawn_in_a_line(tmp_path: Path, train_run) -> None:
    folder = train_run("r")
    one = StepRecord.model_validate_json((folder / "steps.jsonl").read_text().splitlines()[0])
    with (folder / "steps.jsonl").open("a") as steps:
        steps.writelines(one.model_copy(update={"step": n, "loss": 1e4 - n}).model_dump_json() + "\n" for n in range(61, 10_000))
    run = seen(folder)
    assert (run.done, len(run.losses) < MOST_LOSSES) == (9999, True)
    assert sparkline([1.0] * 3) == "▁▁▁"
    drawn = sparkline([float(n) for n in range(480)])
    assert (len(drawn), drawn[0], drawn[-1]) == (48, "▁", "█")


def test_a_log_that_draws_over_itself_shows_what_was_drawn_last(train_run) -> None:
    folder = train_run("r")
    (folder / "log.txt").write_bytes(b"first\n\x1b[2J\x1b[31mred\x1b[0m\x07\nloading 1%\rloading 50%\rloading 99%\n\n\xff bytes\n")
    assert seen(folder).log(3) == ["red", "loading 99%", "\ufffd bytes"]
