"""Runs in a real Pushgateway: what arrives, twice, while it is down, and how it goes again."""

import datetime
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ncdemo.spec import SpecError, TrainSpec, dump_spec
from ncdemo.spec.follow import RunState
from ncdemo.spec.ledger import LedgerEntry, LedgerHead
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import Client, SearchResult
from workloads.metrics.exporters.__main__ import main
from workloads.metrics.exporters.export import dry_run, export_run, retire_run, spool_dir
from workloads.metrics.exporters.gateway import Gateway, Refused, group_path
from workloads.metrics.exporters.names import NAMES
from workloads.metrics.exporters.page import groups
from workloads.run import open_run
from workloads.stop import StopRequest

ROOT = Path(__file__).parents[2]


def of(series, name, **labels):
    """Return the values of a metric's series that have these labels."""
    return [value for (found, have), value in series.items() if found == name and labels.items() <= dict(have).items()]


def shown(state, alive_s=None):
    """Return what a run has to export, as a scrape returns it."""
    return {
        (sample.name, frozenset({**group.key, **sample.labels}.items())): sample.value
        for group in groups(state, "node-1", alive_s)
        for family in group.collect()
        for sample in family.samples
    }


def test_a_training_run_arrives_whole_and_again_changes_nothing(train_run, gateway, scrape):
    folder = train_run("tune", gpus=2, lost=1)
    assert export_run(folder, gateway)
    first = scrape(gateway)
    key = {"job": "ncdemo", "run": "tune-1", "strategy": "accelerate", "instance": "node-1"}
    assert all(key.items() <= dict(labels).items() for _, labels in first)
    record = json.loads((folder / "result.json").read_text())
    assert of(first, "ncdemo_train_steps_total") == [60]
    assert of(first, "ncdemo_train_tokens_total") == [record["train"]["tokens"]]
    assert of(first, "ncdemo_train_energy_joules") == [7_654_321]
    assert of(first, "ncdemo_eval_loss", evaluation="first") == [2.48]
    assert of(first, "ncdemo_eval_loss", evaluation="last") == [0.41]
    assert of(first, "ncdemo_run_status", status="finished") == [1]
    assert sum(of(first, "ncdemo_run_status")) == 1
    assert of(first, "ncdemo_gpu_up", gpu="0") == [1]
    assert of(first, "ncdemo_gpu_up", gpu="1") == [0]
    assert of(first, "ncdemo_gpu_power_watts", gpu="1") == [], "not measured is no series"
    assert 0 < of(first, "ncdemo_gpu_utilization_ratio", gpu="0")[0] <= 1
    assert export_run(folder, gateway)
    assert scrape(gateway) == first


def test_a_benchmark_has_a_group_per_engine(bench_run, gateway, scrape):
    folder = bench_run(flaw=True)
    assert export_run(folder, gateway)
    seen = scrape(gateway)
    assert {dict(labels).get("engine") for _, labels in seen} == {None, "transformers", "vllm"}
    assert of(seen, "ncdemo_bench_requests_total", engine="vllm", outcome="failed") == [1]
    cells = [
        c for c in json.loads((folder / "result.json").read_text())["bench"]["cells"] if (c["engine"], c["concurrency"]) == ("vllm", 8)
    ]
    middle = sum(cell["output_tokens_per_s"] for cell in cells) / 2
    (load,) = {dict(labels)["load"] for name, labels in seen if name == "ncdemo_bench_ttft_seconds" and dict(labels)["load"].endswith("8")}
    assert of(seen, "ncdemo_bench_output_tokens_per_second", engine="vllm", load=load) == [pytest.approx(middle)]
    assert of(seen, "ncdemo_bench_engine_waiting_requests", engine="vllm", model="smollm2-135m-instruct") == [0]
    assert not of(seen, "ncdemo_bench_engine_waiting_requests", engine="transformers"), "it has no server that could tell"
    assert of(seen, "ncdemo_bench_itl_seconds", engine="vllm", load=load, percentile="p50")[0] > 0
    assert of(seen, "ncdemo_bench_ttft_seconds", percentile="p99") == [], "too few requests bound it"
    assert of(seen, "ncdemo_host_cpu_busy_ratio") != []


def test_a_benchmark_that_is_under_way_has_the_figures_of_its_finished_cells(bench_run):
    """Its result has none before it closes: the ledger has them, maybe with a line of another version."""
    folder = bench_run(repeats=2)
    cells = RunRecord.model_validate_json((folder / "result.json").read_text()).bench.cells
    running = json.loads((folder / "result.json").read_text()) | {"status": "running", "bench": None, "duration_s": None}
    (folder / "result.json").write_text(json.dumps(running))
    entries = [
        LedgerEntry(key=f"c{i}", cell=cell, requests_bytes=0, end_s=1.0 + i, wall_s=1.0).model_dump_json() for i, cell in enumerate(cells)
    ]
    first = next(i for i, cell in enumerate(cells) if cell.engine == "vllm")
    head, strange = LedgerHead(spec_hash="0" * 12).model_dump_json(), '{"key": "x", "cell": {"engine": 7}}'
    (folder / "cells.jsonl").write_text("\n".join([head, strange, *entries[: first + 1]]) + "\n")
    state = RunState(folder)
    state.update()
    rows = of(shown(state), "ncdemo_bench_output_tokens_per_second", engine="vllm")
    assert rows == [pytest.approx(cells[first].output_tokens_per_s)]
    assert of(shown(state), "ncdemo_bench_ttft_seconds", engine="vllm", percentile="p50") == [pytest.approx(cells[first].ttft_s.p50)]
    with (folder / "cells.jsonl").open("a") as lines:
        lines.write("\n".join(entries[first + 1 :]) + "\n")
    state.update()
    assert len(of(shown(state), "ncdemo_bench_goodput_requests_per_second")) == len({(c.engine, c.concurrency) for c in cells})


def test_cells_that_differ_in_load_or_precision_are_no_repeats_and_the_latest_send_counts(bench_run, gateway, scrape):
    folder = bench_run(repeats=2)
    record = RunRecord.model_validate_json((folder / "result.json").read_text())
    words = {0: ("bf16", "poisson 4 req/s", 0.002), 1: ("fp8", "poisson 4 req/s", 0.25)}
    cells = []
    for cell in (one for one in record.bench.cells if one.concurrency == 8 and one.engine == "vllm"):
        variant, setting, late = words[cell.repeat]
        client = Client(processes=1, cpu_share=0.1, events_per_s=1, max_lateness_s=late)
        since_due = cell.ttft_s.model_copy(update={"p50": cell.ttft_s.p50 + 9})
        costs = {"energy_j_per_token": 0.5, "usd_per_mtok": 1.25, "ttft_from_schedule_s": since_due}
        open_loop = {"variant": variant, "setting": setting, "client": client, "concurrency": None} | costs
        cells += [cell.model_copy(update={**open_loop, "repeat": repeat}) for repeat in range(2)]
    first = next(cell for cell in cells if cell.variant == "fp8")
    cells.append(first.model_copy(update={"client": first.client.model_copy(update={"max_lateness_s": 0.5})}))
    searches = [SearchResult(engine="vllm", model="m", lengths=lengths, max_goodput_rate_rps=rate, runs=3, reason="r")
                for lengths, rate in (("8 to 2 tokens", 4.0), ("9 to 2 tokens", None))]  # fmt: skip
    changed = record.model_copy(update={"bench": record.bench.model_copy(update={"cells": cells, "searches": searches})})
    (folder / "result.json").write_text(changed.model_dump_json())
    assert export_run(folder, gateway)
    seen = scrape(gateway)
    assert of(seen, "ncdemo_bench_highest_rate_requests_per_second", engine="vllm", load="searched 8 to 2 tokens") == [4]
    assert len(of(seen, "ncdemo_bench_highest_rate_requests_per_second")) == 1, "one that found none"
    for variant, late in (("bf16", 0.002), ("fp8", 0.5)):
        load = f"{variant} poisson 4 req/s"
        cell = next(one for one in cells if one.variant == variant)
        assert of(seen, "ncdemo_bench_output_tokens_per_second", load=load) == [pytest.approx(cell.output_tokens_per_s)]
        assert of(seen, "ncdemo_bench_send_lateness_seconds", load=load) == [late]
        assert of(seen, "ncdemo_bench_ttft_seconds", load=load, percentile="p50") == [pytest.approx(cell.ttft_s.p50 + 9)], "since due"
        assert of(seen, "ncdemo_bench_energy_joules_per_token", load=load) == [0.5]
        assert of(seen, "ncdemo_bench_usd_per_million_tokens", load=load) == [1.25]
        mean = cell.e2e_s.mean * cell.e2e_s.count / cell.window_s
        assert of(seen, "ncdemo_bench_in_flight_requests", load=load) == [pytest.approx(mean)]
        assert 1 < mean <= 8, "a closed loop of eight"


def test_down_for_the_whole_run_loses_nothing_once_it_is_back(train_run, bench_run, servers, scrape, tmp_path, monkeypatch):
    runs = [train_run("a"), train_run("b", seed=2, gpus=1), bench_run()]
    with servers.pushgateway(tmp_path) as up:
        for run in runs:
            assert export_run(run, up)
        expected = scrape(up)
    monkeypatch.setenv("NCDEMO_RUNS", str(tmp_path / "others"))
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    for run in [*runs, runs[0]]:
        assert not export_run(run, url, within_s=0.3)
    assert len(list(spool_dir().glob("*.json"))) == 5, "three runs, of them a benchmark of two engines; again is no more"
    with servers.pushgateway(tmp_path, port):
        assert export_run(train_run("c", seed=3), url), "the next run to be exported takes along what waits"
        assert {key: value for key, value in scrape(url).items() if ("run", "c-1") not in key[1]} == expected
    assert list(spool_dir().glob("*.json")) == []


def test_a_gateway_that_comes_back_while_we_try(train_run, servers, scrape, tmp_path):
    port = servers.free_port()
    code = "import sys; from pathlib import Path; from workloads.metrics.exporters.export import export_run as e; print(e(Path(sys.argv[1]), sys.argv[2]))"
    with subprocess.Popen([sys.executable, "-c", code, train_run("late"), f"http://127.0.0.1:{port}"], stdout=subprocess.PIPE) as exporter:
        with pytest.raises(subprocess.TimeoutExpired):
            exporter.wait(1.5)
        with servers.pushgateway(tmp_path, port) as url:
            assert exporter.communicate(timeout=15)[0] == b"True\n"
            assert of(scrape(url), "ncdemo_train_steps_total") == [60]


def test_retiring_deletes_every_group_of_a_run_and_no_other(train_run, bench_run, gateway, scrape):
    folder, other = bench_run(), train_run("stays")
    assert export_run(folder, gateway)
    assert export_run(other, gateway)
    assert retire_run("bench-1", gateway) == (3, True)
    # The gateway accepts a deletion and carries it out behind that answer; a push it answers only when it is carried out, after those before.
    assert export_run(other, gateway)
    assert {dict(labels)["run"] for _, labels in scrape(gateway)} == {"stays-1"}
    assert retire_run("bench-1", gateway) == (0, True)


def test_retiring_while_it_is_down_waits_too_and_overtakes_the_push(train_run, servers, scrape, tmp_path, ncdemo):
    # A run directory is named by its run id.
    folder = train_run("x").rename(tmp_path / "runs" / "x-1")
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    with servers.pushgateway(tmp_path, port):
        assert export_run(folder, url)
    assert not export_run(folder, url, within_s=0)
    assert retire_run(str(folder), url, within_s=0) == (1, False)
    with servers.pushgateway(tmp_path, port):
        assert export_run(train_run("y"), url)
        assert ncdemo("metrics", "send", "--gateway", url).stdout.endswith("0 groups sent, 0 still wait\n")
        assert {dict(labels)["run"] for _, labels in scrape(url)} == {"y-1"}


def test_retiring_by_id_while_it_is_down_takes_the_folder_or_what_waits_or_says_what_to_do(train_run, servers, tmp_path, monkeypatch):
    url = f"http://127.0.0.1:{servers.free_port()}"
    with pytest.raises(SpecError, match=r"does not answer .*x-1 is no run's folder here nor under .*; retire it once the gateway is back"):
        retire_run("x-1", url, within_s=0)
    folder = train_run("x").rename(tmp_path / "x-1")
    assert not export_run(folder, url, within_s=0)
    assert retire_run("x-1", url, within_s=0) == (1, False), "what waits knows it"
    shutil.rmtree(spool_dir())
    folder.rename(tmp_path / "runs" / "x-1")
    assert retire_run("x-1", url, within_s=0) == (1, False), "the folder knows it"
    monkeypatch.chdir(tmp_path / "runs" / "x-1")
    assert retire_run(".", url, within_s=0) == (1, False)


def test_a_run_exported_from_another_machine_is_the_same_group(gateway, scrape, tmp_path, monkeypatch):
    """Pulled from storage and exported again, with the node's name or the host's own."""
    folder, spec = tmp_path / "runs" / "r", TrainSpec.model_validate({"telemetry": {"mlflow_uri": None, "sample_hz": 0}})
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(dump_spec(spec))
    with open_run(folder, spec, stop=StopRequest()):
        pass
    assert export_run(folder, gateway)
    first = scrape(gateway)
    assert {dict(labels)["instance"] for _, labels in first} == {"node-1"}
    monkeypatch.setenv("NODE_NAME", "laptop")
    pulled = folder.rename(tmp_path / "runs" / "pulled")
    assert export_run(pulled, gateway)
    assert scrape(gateway) == first
    assert retire_run(str(pulled), gateway) == (1, True)


def test_the_oldest_runs_make_room_but_none_that_runs(train_run, gateway, scrape):
    made = {"status": "running", "duration_s": None, "train": None}
    assert export_run(train_run("live", **made), gateway, keep=2)
    for name in "abc":
        assert export_run(train_run(name), gateway, keep=2)
    assert {dict(labels)["run"] for _, labels in scrape(gateway)} == {"live-1", "c-1"}


def test_what_a_gateway_refuses_is_said_and_not_kept(gateway, tmp_path):
    from workloads.metrics.exporters.spool import Spool

    spool = Spool(tmp_path / "spool", Gateway(gateway))
    with pytest.raises(Refused, match=r"refuses PUT /metrics/job/ncdemo: 400 .*text format"):
        spool.deliver("PUT", {"job": "ncdemo"}, "not { metrics")
    assert spool.waiting() == []


def test_odd_names_are_carried(train_run, gateway, scrape):
    name = "it's / a run + ü"
    assert export_run(train_run("odd", run_id=name), gateway)
    assert {dict(labels)["run"] for _, labels in scrape(gateway)} == {name}
    assert group_path({"job": "j", "b": "", "a": "x.y"}) == "/metrics/job/j/a/x.y/b@base64/="


def test_names_units_help_and_types_pass_promtool(train_run, bench_run, servers):
    tool = servers.needs("promtool")
    for folder in (train_run("tune", gpus=2), bench_run()):
        state = RunState(folder)
        state.update()
        for group in groups(state, "node-1"):
            done = subprocess.run([tool, "check", "metrics"], input=group.text(), capture_output=True, text=True)
            assert (done.returncode, done.stdout + done.stderr) == (0, "")
            for family in text_string_to_metric_families(group.text()):
                name = family.name + ("_total" if family.type == "counter" else "")
                assert (family.type, family.documentation) == NAMES[name][:2]


def test_a_dry_run_pushes_nothing_and_shows_all(bench_run, gateway, scrape, ncdemo):
    folder = bench_run()
    done = ncdemo("metrics", "export", folder, "--gateway", gateway, "--dry-run")
    assert done.stdout.strip() == dry_run(folder).strip()
    assert done.stdout.count("# group job=ncdemo run=bench-1") == 3
    assert scrape(gateway) == {}


def test_the_command_and_the_script_do_the_same(train_run, gateway, scrape, ncdemo, tmp_path):
    folder = train_run("same")
    done = ncdemo("metrics", "export", folder, NCDEMO_PUSHGATEWAY=gateway)
    assert (done.returncode, done.stdout) == (0, f"{gateway}: same is there\n")
    first = scrape(gateway)
    assert ncdemo("metrics", "retire", "same-1", "--gateway", gateway).returncode == 0
    end = time.monotonic() + 10
    while scrape(gateway):  # it carries a deletion out behind its answer
        assert time.monotonic() < end
        time.sleep(0.05)
    script = ROOT / "scripts" / "monitoring" / "export_metrics.py"
    subprocess.run([sys.executable, script, folder, "--gateway", gateway], check=True, cwd=tmp_path, capture_output=True, timeout=60)
    assert scrape(gateway) == first


def test_a_gateway_that_is_down_is_exit_75_and_one_line(train_run, capsys, servers):
    url = f"http://me:canary-7331@127.0.0.1:{servers.free_port()}"
    code = main(["export", str(train_run("x")), "--gateway", url, "--within-s", "0.2"])
    said = capsys.readouterr()
    assert code == 75
    assert "does not answer: kept in" in said.err
    assert f"send it later with: ncdemo metrics send --gateway {Gateway(url).shown}\n" in said.err
    kept = "".join(path.read_text() for path in spool_dir().glob("*.json"))
    assert "canary" not in said.err + said.out + kept


def test_a_run_says_when_it_was_seen_whenever_it_is_exported(train_run, gateway, scrape):
    started = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    began = {"started_at": started.isoformat()}
    runs = [train_run("over", **began), train_run("killed", **began, status="running", duration_s=None)]
    states = [RunState(folder) for folder in runs]
    for folder, state in zip(runs, states, strict=True):
        state.update()
        assert export_run(folder, gateway)
    (ended,) = of(scrape(gateway), "ncdemo_run_seen_timestamp_seconds", run="over-1")
    assert ended == pytest.approx(started.timestamp() + states[0].record.duration_s)
    (last,) = of(scrape(gateway), "ncdemo_run_seen_timestamp_seconds", run="killed-1")
    assert last == pytest.approx(started.timestamp() + max(states[1].progress_s, states[1].sample["time_s"]))
    assert of(shown(states[1], alive_s=7.0), "ncdemo_run_seen_timestamp_seconds") == [7.0], "beside one that lives, now"


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(SpecError, match=r"is not a run directory \(it has no result\.json\)"):
        export_run(tmp_path, "http://127.0.0.1:1")


def test_at_high_rates_the_cpu_is_that_of_the_second_before(train_run, gateway, scrape):
    folder = train_run("fast")
    last = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    bare = {name: None for name in last if name.endswith(("_pct", "_per_s"))} | {"process_rss_bytes": 5}
    with (folder / "samples.jsonl").open("a") as lines:
        lines.writelines(json.dumps(last | bare | {"time_s": last["time_s"] + n / 100}) + "\n" for n in range(1, 9))
    assert export_run(folder, gateway)
    seen = scrape(gateway)
    assert of(seen, "ncdemo_host_cpu_busy_ratio") == [pytest.approx(last["cpu_pct"] / 100)]
    assert of(seen, "ncdemo_process_resident_memory_bytes") == [5]
