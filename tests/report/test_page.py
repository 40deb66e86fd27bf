"""What the page shows of runs that went well: the record's numbers, escaped, in one file, the same every time."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ncdemo.report import write_report

GATES = {"prompt_hash": "ab", "asked_tokens": "32 exactly", "temperature": 0.0, "precision": "bf16", "max_model_len": 2048}
GATES |= {"memory_fraction": 0.4, "warmup_requests": 2, "prefix_cache": "off", "prefix_reuse": False}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.texts))


def page(runs: list[Path], tmp_path: Path) -> tuple[str, Elements]:
    html = write_report(runs, tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    return html, Elements(html)


def change_result(run: Path, change) -> None:
    record = json.loads((run / "result.json").read_text())
    change(record)
    (run / "result.json").write_text(json.dumps(record))


def test_one_file_that_needs_nothing_else(train_run, bench_run, tmp_path):
    html, elements = page([train_run(gpus=2), bench_run()], tmp_path)
    assert not {tag for tag, _ in elements.found} & {"script", "link", "iframe", "img", "object", "embed", "base"}
    for tag, attributes in elements.found:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)|https?://", html)
    assert "default-src 'none'" in html


def test_inner_links_and_ids_fit(train_run, bench_run, tmp_path):
    html, elements = page([train_run(gpus=2), bench_run(flaw=True)], tmp_path)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:href="|url\()#([^")]+)', html)
    assert targets
    assert set(targets) <= set(ids)


def test_training_numbers_are_the_records(train_run, tmp_path):
    run = train_run()
    result = json.loads((run / "result.json").read_text())["train"]
    _, elements = page([run], tmp_path)
    for shown in (
        "0.0 % → 71.9 %",  # exact match 0.71875
        "2.48 → 0.41",
        "perplexity 11.94 → 1.507",
        f"{result['tokens']:,}",
        f"{round(result['tokens_per_s']):,}",
        "134,515,008",
        "3 GiB",
        "3.1 %",
        "ncdemo-jobs",
        "64 held-out examples",
        "✓ finished",
    ):
        assert shown in re.sub(r"\s+", " ", elements.text), shown
    labels = [attributes["aria-label"] for tag, attributes in elements.found if tag == "svg" and "aria-label" in attributes]
    for what in ("Loss per", "Throughput", "Learning rate", "Gradient norm", "Accuracy before and after", "Time line"):
        assert any(label.startswith(what) for label in labels), what


def test_bench_numbers_are_the_records(bench_run, tmp_path):
    run = bench_run()
    cells = json.loads((run / "result.json").read_text())["bench"]["cells"]
    html, elements = page([run], tmp_path)
    rows = [re.sub(r"<[^>]+>", " ", row.replace("<sup>†</sup>", "")).split() for row in re.findall(r"<tr.*?</tr>", html, flags=re.DOTALL)]
    for cell in cells:
        key = [cell["engine"], str(cell["concurrency"]), str(cell["repeat"])]
        throughput, latency = [row for row in rows if row[:3] == key]
        assert float(throughput[5].replace(",", "")) == pytest.approx(cell["output_tokens_per_s"], rel=1e-3)
        assert float(latency[3].replace(",", "")) == pytest.approx(cell["ttft_s"]["p50"] * 1e3, rel=1e-2)
        assert float(latency[6].replace(",", "")) == pytest.approx(cell["tpot_s"]["p50"] * 1e3, rel=1e-2)
    assert "5.16.1" in elements.text
    assert "21.7 s" in elements.text


def test_ticks_keep_their_digits(train_run, tmp_path):
    run = train_run()
    lines = (run / "steps.jsonl").read_text().splitlines()
    steps = [json.loads(line) | {"grad_norm": 0.001 + step / 60_000} for step, line in enumerate(lines)]
    (run / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    html, _ = page([run], tmp_path)
    plot = re.search(r'aria-label="Gradient norm.*?</svg>', html, flags=re.DOTALL)[0]
    assert {"5e-4", "0.001", "0.0015"} <= set(re.findall(r">([^<]+)</text>", plot))


def test_one_engine_is_not_told_about_differences(bench_run, tmp_path):
    run = bench_run()
    change_result(run, lambda record: record["bench"].update(cells=[c for c in record["bench"]["cells"] if c["engine"] == "vllm"]))
    lines = [line for line in (run / "requests.jsonl").read_text().splitlines() if '"vllm"' in line]
    (run / "requests.jsonl").write_text("\n".join(lines) + "\n")
    _, elements = page([run], tmp_path)
    assert "not established" not in elements.text


def test_an_open_loop_shows_the_wait_since_a_request_was_due_and_arguments_stand_by_the_version(bench_run, tmp_path):
    run = bench_run()
    assert "TTFT since due" not in write_report([run], tmp_path / "closed.html").read_text()
    record = json.loads((run / "result.json").read_text())
    for one in record["bench"]["cells"]:
        one |= {"concurrency": None, "rate_rps": 4.0, "setting": "poisson 4 req/s"} if one["concurrency"] == 8 else {}
        one["ttft_from_schedule_s"] = {"count": 20, "mean": 1.0, "p50": 7.777, "p90": None, "p99": None, "min": 1.0, "max": 9.0}
    record["bench"]["server_args"] = {"vllm": ["--swap-space", "8"]}
    (run / "result.json").write_text(json.dumps(record))
    html = write_report([run], tmp_path / "open.html").read_text()
    assert html.count("TTFT since due") == 1
    assert html.count(">7,777<") == 8, "once a cell"
    assert "0.32.0 --swap-space 8" in html


def test_unbound_percentile_is_said_not_invented(bench_run, tmp_path):
    run = bench_run()

    def unbind(record):
        for cell in record["bench"]["cells"]:
            cell["ttft_s"]["p50"] = None
            cell["tpot_s"] = None

    change_result(run, unbind)
    html, elements = page([run], tmp_path)
    card = re.search(r"<h2>TTFT.*?</dl>", html, flags=re.DOTALL)[0]
    assert card.count(">n/a<sup>†</sup>") == 2
    assert "Too few samples to bound this percentile at 0.99 confidence" in elements.text
    assert "not measured" in elements.text
    assert not re.search(r"\b(None|nan|NaN)\b", elements.text)


def test_few_repeats_establish_nothing_and_enough_give_an_interval(bench_run, tmp_path):
    _, few = page([bench_run("few", repeats=2)], tmp_path)
    assert "Differences between engines are not established: 2 repeats of at least 6" in re.sub(r"\s+", " ", few.text)
    assert "not established: 2 of at least 6 repeats" in few.text
    _, enough = page([bench_run("enough", repeats=6)], tmp_path)
    assert "not established" not in enough.text
    assert re.search(r"vllm / transformers 2\.\d+ × 2\.\d+ to 2\.\d+ 6 established", enough.text)


def test_an_engines_own_count_that_contradicts_is_flagged(bench_run, tmp_path):
    folder = bench_run()

    def told(record):
        for cell, own in zip(
            record["bench"]["cells"], ({"output_tokens": 9000}, {"cached_prompt_tokens": 640}, {"output_tokens": 528}), strict=False
        ):
            cell["counted"], cell["asked_output_tokens"], cell["output_tokens"] = own, 512, 512
            cell["gates"] = GATES

    change_result(folder, told)
    _, elements = page([folder], tmp_path)
    text = re.sub(r"\s+", " ", elements.text)
    assert "⚑ the engine counted 9,000 output tokens where 512 arrived: it may have been loaded by others too" in text
    assert "⚑ 640 prompt tokens came from a prefix cache, by the engine's own count" in text
    assert "2 of 8 cells fail a fairness gate." in text, "one token a request more is an engine's way to count"


def test_what_an_engine_says_of_itself_is_on_the_time_line(bench_run, tmp_path):
    html, _ = page([bench_run()], tmp_path)
    for title in ("Requests waiting, as the engine says", "Requests running, as the engine says", "Key-value cache used (%)"):
        assert title in html
    folder = bench_run("idle")
    told = [json.loads(line) for line in (folder / "engines.jsonl").read_text().splitlines()]
    (folder / "engines.jsonl").write_text("".join(json.dumps(one | {"waiting": 0, "running": None}) + "\n" for one in told))
    html, _ = page([folder], tmp_path)
    assert "as the engine says" not in html
    assert "Key-value cache used (%)" in html


def test_failed_gates_are_flagged(bench_run, tmp_path):
    _, elements = page([bench_run(flaw=True)], tmp_path)
    for shown in (
        "4 of 8 cells fail a fairness gate.",
        "⚑ 1 of 16 requests failed",
        "⚑ output tokens differ from what was asked for",  # a result of an older version has no counts
        "⚑ only 62.0 % of tokens agree with the first engine",
        "not comparable: vllm, repeat 0: only 62.0 % of tokens agree with the first engine",
        "gate failed",
        "ReadTimeout: no answer in 60 s",
    ):
        assert shown in elements.text, shown


def test_right_answers_are_shown_where_prompts_have_any(bench_run, tmp_path):
    run = bench_run()
    assert "Exact match" not in page([run], tmp_path)[1].text

    def answer(record):
        for cell in record["bench"]["cells"]:
            cell |= {"exact_match": 0.9 if cell["engine"] == "vllm" else 0.25, "exact_match_examples": 64}

    change_result(run, answer)
    _, elements = page([run], tmp_path)
    for shown in ("Exact match", "25.0 % of 64", "not comparable: exact_match 90.0 % and 25.0 % of 64 examples, vllm - transformers in"):
        assert shown in elements.text, shown


def test_engine_that_never_answered(bench_run, tmp_path):
    run = bench_run()

    def lose(record):
        for cell in record["bench"]["cells"]:
            if cell["engine"] == "vllm":
                kept = {key: cell[key] for key in ("engine", "model", "concurrency", "repeat", "requests")}
                cell.clear()
                cell.update(kept, failed=16, error="vllm did not start: no CUDA device")

    change_result(run, lose)
    lines = [line for line in (run / "requests.jsonl").read_text().splitlines() if '"vllm"' not in line]
    (run / "requests.jsonl").write_text("\n".join(lines) + "\n")
    _, elements = page([run], tmp_path)
    assert "⚑ not measured: vllm did not start: no CUDA device" in elements.text
    assert "n/a" in elements.text


def test_names_are_escaped(train_run, bench_run, tmp_path):
    evil = "</title><script>alert(1)</script>&<b>$x$"
    run, bench = train_run(), bench_run()
    change_result(run, lambda record: record.update(name=evil, run_id=evil, status="failed", reason=evil))
    environment = json.loads((run / "environment.json").read_text()) | {evil: {"<i>": evil}}
    (run / "environment.json").write_text(json.dumps(environment))
    (run / "spec.yaml").write_text("kind: train\nname: '</pre><script>'\n")
    for file in ("result.json", "requests.jsonl"):
        text = (bench / file).read_text()
        (bench / file).write_text(text.replace('"vllm"', json.dumps(evil + "\ud800\x00日本")).replace("smollm2", "<i>smollm2"))
    html, _ = page([run, bench], tmp_path)
    assert not re.search(r"<script|<b>|<i>", html)
    assert evil in unescape(html)
    assert html.count("ncdemo report</title>") == 1


def test_runs_side_by_side(train_run, bench_run, tmp_path):
    _, elements = page([train_run("slow"), train_run("fast", seed=2, speed=4000.0), bench_run()], tmp_path)
    text = elements.text
    assert "3 runs" in text
    assert "What differs between the specs of these training runs" in text
    assert "train.seed" in text
    assert "Time line of slow" in str(elements.found)
    assert "ncdemo bench run -c spec.yaml" in text
    assert text.count(f"git checkout {COMMIT}\nncdemo train accelerate -c spec.yaml") == 2


def test_equal_names_get_telling_labels(train_run, tmp_path):
    first, second = train_run("a"), train_run("b", seed=2)
    change_result(first, lambda record: record.update(name="same", run_id="same-1"))
    change_result(second, lambda record: record.update(name="same", run_id="same-2"))
    _, elements = page([first, second], tmp_path)
    assert "same-1" in elements.text
    assert "same-2" in elements.text
    _, twice = page([first, first], tmp_path)
    assert "same-1 (2)" in twice.text


def test_benchmarks_of_different_prompts_are_not_compared_silently(bench_run, tmp_path):
    first, second = bench_run("one"), bench_run("two")
    change_result(second, lambda record: record["bench"].update(prompt_hash="cd" * 32))
    _, elements = page([first, second], tmp_path)
    assert "did not ask the same prompts" in elements.text


def test_uncommitted_changes_are_said(train_run, tmp_path):
    run = train_run()
    environment = json.loads((run / "environment.json").read_text()) | {"git_dirty": True}
    (run / "environment.json").write_text(json.dumps(environment))
    _, elements = page([run], tmp_path)
    assert "The working tree had uncommitted changes" in elements.text


def test_equal_runs_give_equal_bytes(train_run, bench_run, tmp_path):
    runs = [train_run(gpus=2, lost=1), bench_run(flaw=True)]
    first = write_report(runs, tmp_path / "one.html").read_bytes()
    assert first == write_report(runs, tmp_path / "elsewhere" / "two.html").read_bytes()
    assert str(tmp_path).encode() not in first
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_single_model_is_named_once_and_columns_that_tell_nothing_are_left_out(bench_run, tmp_path):
    """Priced on demand, without spot prices and power; a second model brings its column back."""
    for name, second in (("one", "smollm2-135m-instruct"), ("two", "another")):
        folder = bench_run(name)
        record = json.loads((folder / "result.json").read_text())
        cells = [cell | {"usd_per_mtok": 1.5} for cell in record["bench"]["cells"]]
        record["bench"]["cells"] = [cell | {"model": second if i % 2 else cell["model"]} for i, cell in enumerate(cells)]
        (folder / "result.json").write_text(json.dumps(record))
        page = write_report([folder], tmp_path / f"{name}.html").read_text()
        costs = page[page.index("What output tokens cost") :]
        heads = re.findall(r"<th scope=\"col\"[^>]*>([^<]+)", costs[: costs.index("</thead>")])
        assert heads == ["Engine", *(["Model"] if name == "two" else []), "Load", "USD per million tokens"]
        assert ("Model: smollm2-135m-instruct" in page) == (name == "one")
