"""How far a cell is while it is measured: its time against what it is expected to take, and the requests that have ended."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ncdemo.spec import BenchSpec, dump_spec
from ncdemo.spec.ledger import LedgerEntry, LedgerHead, read_ledger
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import Cell
from ncdemo.spec.sweep import cells
from workloads.inference import ended
from workloads.inference.ended import Counter
from workloads.inference.stage import ticking


def test_a_long_offline_cell_tells_its_time_and_what_has_ended(tmp_path: Path, tiny_model: Path) -> None:
    """transformers, really: request after request, of which each takes a good part of a second."""
    spec = BenchSpec.model_validate_json(json.dumps({
        "engines": ["transformers"], "concurrency": [1], "prompts": {"count": 8}, "sampling": {"max_new_tokens": 150}, "repeats": 2,
        "max_model_len": 1024, "warmup_requests": 1, "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
        "models": [{"name": str(tiny_model), "label": "tiny"}],
    }))  # fmt: skip
    first, second = (cell.key for cell in cells(spec))
    about = Cell(engine="transformers", model="tiny", repeat=0, requests=8, failed=0)
    earlier, folder = tmp_path / "earlier", tmp_path / "run"
    earlier.mkdir()
    entry = LedgerEntry(key=first, cell=about, requests_bytes=0, end_s=1, wall_s=7.5)
    lines = [LedgerHead(spec_hash=spec.spec_hash()).model_dump_json(), entry.model_dump_json()]
    (earlier / "cells.jsonl").write_text("".join(line + "\n" for line in lines))
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(spec))
    done = subprocess.run([sys.executable, "-m", "workloads.inference.bench", "--run", folder], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "NCDEMO_PROGRESS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    entries = {entry.key: entry for entry in read_ledger(folder / "cells.jsonl").entries}
    assert [m["done"] for m in told] == sorted(m["done"] for m in told)
    for n, (key, expected_s) in enumerate(((first, 7.5), (second, entries[first].wall_s))):
        within = [m for m in told if "cell_s" in m and n <= m["done"] < n + 1]
        assert len(within) >= min(2, entries[key].wall_s // 0.6), "twice a second"
        assert all(m["expected_s"] == expected_s for m in within), "by an earlier run of this spec, then by its own other repeat"
        assert all(m["done"] == n + m["requests"] / 8 for m in within)
        assert all(0 < m["cell_s"] <= entries[key].wall_s for m in within)
    assert any(0 < m.get("requests", 0) < 8 for m in told), "requests are seen to end"
    loaded = RunRecord.model_validate_json((folder / "result.json").read_text()).bench.load_time_s
    assert entries[first].wall_s < entries[second].wall_s + 0.8 * sum(loaded.values()), "the engine's start is no part of a cell"


def test_a_server_that_has_answered_nothing_yet_shows_its_time(swept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCDEMO_PROGRESS", "1")
    done = swept(server_args={"echo": ["--ttft-ms", "1600"]}, concurrency=[24])
    assert done.code == 0, done.said
    within = [m for m in map(json.loads, done.told.splitlines()) if m.get("cell_s")]
    assert [m["cell_s"] for m in within if m["requests"] == 0] == sorted(m["cell_s"] for m in within if m["requests"] == 0)
    assert sum(m["requests"] == 0 for m in within) >= 2, "the first answers come after 1.6 s"
    assert not any("expected_s" in m for m in within), "nothing is known of it"


def test_a_counter_is_read_by_another_process_than_counts() -> None:
    counter = Counter()
    code = "import sys; from workloads.inference.ended import share, ended; share(int(sys.argv[1])); ended(); ended(1000); input(); ended()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(counter.fd)], pass_fds=(counter.fd,), stdin=subprocess.PIPE, text=True
    ) as process:
        counter.close_fd()
        until = time.monotonic() + 60
        while counter.count < 1001 and time.monotonic() < until:
            time.sleep(0.01)
        assert counter.count == 1001
        counter.reset()
        process.stdin.write("\n")
    assert (process.returncode, counter.count) == (0, 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(counter.fd)
    before = ended._count[0]
    ended.ended()
    assert ended._count[0] == before + 1, "without a reader it counts for itself"


def test_nothing_ticks_after_the_end() -> None:
    ticks: list[str] = []

    def fail() -> None:
        with ticking(0.05, lambda: ticks.append(threading.current_thread().name)):
            until = time.monotonic() + 20
            while len(ticks) < 2 and time.monotonic() < until:
                time.sleep(0.01)
            raise ValueError("as the body did")

    with pytest.raises(ValueError, match="as the body did"):
        fail()
    seen = len(ticks)
    assert seen >= 2
    assert threading.main_thread().name not in ticks
    time.sleep(0.2)
    assert len(ticks) == seen
