"""One contract for every engine: what is installed is run for real on a tiny model; what isn't by a fake of its published names."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from ncdemo.spec import SpecError
from ncdemo.spec.bench import Engine
from ncdemo.spec.traffic import Load
from workloads.inference import frameworks
from workloads.inference.asked import Asked
from workloads.inference.ended import Counter
from workloads.inference.frameworks.base import Answer, Params, Prompt, Settings, check_model
from workloads.inference.subject import Worker as Subject

FAKES = Path(__file__).parent / "fakes"
SETTINGS = Settings(precision="fp32", max_model_len=256, memory_fraction=0.4, max_concurrency=3)
PROMPTS = [Prompt(i, tuple(range(100 + i, 110 + 3 * i))) for i in range(5)]
PARAMS = Params(concurrency=3, max_new_tokens=8, ignore_eos=True, temperature=0.0, seed=0)


class Worker:
    """The engine's own process, as the benchmark starts it."""

    def __init__(self, engine: str, path: Path, **more: str) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "2", **more}
        self.engine, self.counter = engine, Counter()
        command = [sys.executable, "-m", "workloads.inference.worker", engine, str(path), str(self.counter.fd)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True, pass_fds=(self.counter.fd,)
        )  # fmt: skip
        self.counter.close_fd()

    def ask(self, message: dict) -> dict:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def run(self, prompts: list[Prompt], params: Params) -> list[Answer]:
        reply = self.ask({"prompts": [(p.index, p.token_ids) for p in prompts], "params": asdict(params)})
        return [Answer(**a) for a in reply["answers"]]


@pytest.fixture(scope="module", params=[n for n in frameworks.ENGINES if "offline" in frameworks.forms(n)])
def worker(request: pytest.FixtureRequest, tiny_model: Path):
    more: dict[str, str] = {}
    if frameworks.engine_version(request.param) is None:
        if not (FAKES / request.param).is_dir():
            pytest.skip(f"{request.param} is not installed")
        more["PYTHONPATH"] = str(FAKES)
    worker = Worker(request.param, tiny_model, **more)
    precision = "bf16" if request.param == "lmdeploy" else "fp32"  # which has no fp32
    loaded = worker.ask({"settings": asdict(replace(SETTINGS, precision=precision))})
    assert loaded == {"loaded": request.param}, loaded
    yield worker
    worker.process.communicate(timeout=30)
    assert worker.process.returncode == 0


def test_each_request_yields_exactly_the_tokens_asked_for(worker: Worker) -> None:
    answers = worker.run(PROMPTS, PARAMS)
    assert sorted(a.index for a in answers) == [0, 1, 2, 3, 4]
    assert [len(a.token_ids) for a in answers] == [8] * 5
    assert [sum(a.chunk_tokens) for a in answers] == [8] * 5


def test_stamps_are_in_order_and_on_this_clock(worker: Worker) -> None:
    import time

    before = time.perf_counter_ns()
    answers = worker.run(PROMPTS, PARAMS)
    after = time.perf_counter_ns()
    for a in answers:
        assert len(a.chunk_ns) == len(a.chunk_tokens)
        stamps = [before, a.scheduled_ns, a.sent_ns, *a.chunk_ns, after]
        assert stamps == sorted(stamps)
    assert len({a.sent_ns for a in answers}) > 1  # five requests at concurrency three: not all were sent at once


def test_greedy_answers_repeat_and_do_not_depend_on_the_batch(worker: Worker) -> None:
    def ids(answers: list[Answer]) -> dict[int, list[int]]:
        return {a.index: a.token_ids for a in answers}

    together = ids(worker.run(PROMPTS, PARAMS))
    assert ids(worker.run(PROMPTS, PARAMS)) == together
    one = Params(concurrency=1, max_new_tokens=8, ignore_eos=True, temperature=0.0, seed=0)
    assert ids(worker.run(PROMPTS, one)) == together


def test_a_prompt_that_does_not_fit_is_its_own_failure_and_not_its_batchs(worker: Worker) -> None:
    prompts = [PROMPTS[0], Prompt(1, tuple(range(100, 349))), PROMPTS[2]]
    answers = {a.index: a for a in worker.run(prompts, PARAMS)}
    assert answers[1].error == "prompt too long: 249 prompt and 8 output tokens, max_model_len is 256"
    assert not answers[1].chunk_ns
    assert [len(answers[i].token_ids) for i in (0, 2)] == [8, 8]
    just_fits = worker.run([Prompt(0, tuple(range(100, 348)))], PARAMS)
    assert just_fits[0].error is None
    assert len(just_fits[0].token_ids) == 8


def test_each_request_is_counted_when_it_has_ended(worker: Worker) -> None:
    worker.counter.reset()
    worker.run([*PROMPTS, Prompt(5, tuple(range(100, 349)))], PARAMS)
    assert worker.counter.count == 6, "the one that didn't fit too"


def test_an_engine_survives_a_bad_request(worker: Worker) -> None:
    reply = worker.ask({"prompts": [(0, [])], "params": asdict(PARAMS)})
    assert "error" in reply or reply["answers"]
    assert len(worker.run(PROMPTS, PARAMS)) == 5


def test_vllm_that_failed_in_a_cell_can_not_be_used_again(worker: Worker) -> None:
    """Why the sweep starts an engine anew (test_faults.py). It stands last of those that share a worker: this one is of no use then.

    The second prompt has a token that no vocabulary has: vLLM refuses it when the first is in its queue, and keeps that one.
    """
    if worker.engine != "vllm":
        pytest.skip("it is vLLM that keeps what it had begun")
    begun = [PROMPTS[0], Prompt(1, (100, 10_000_000))]
    reply = worker.ask({"prompts": [(p.index, p.token_ids) for p in begun], "params": asdict(PARAMS)})
    assert (reply["kind"], "out of vocabulary" in reply["error"]) == ("engine_error", True), reply
    again = worker.ask({"prompts": [(p.index, p.token_ids) for p in PROMPTS], "params": asdict(PARAMS)})
    assert (again["kind"], again["error"].split(":")[0]) == ("engine_error", "KeyError"), "an output of the request that was begun before"


@pytest.mark.parametrize("engine", ["sglang", "lmdeploy"])
def test_an_end_token_is_no_output_of_an_asynchronous_engine(engine: str, tiny_model: Path) -> None:
    """By fakes that end after three tokens; the real SGLang is held by test_sglang_offline.py."""
    worker = Worker(engine, tiny_model, PYTHONPATH=str(FAKES))
    assert worker.ask({"settings": asdict(replace(SETTINGS, precision="bf16"))}) == {"loaded": engine}
    for temperature in (0.0, 0.7):
        answers = worker.run(PROMPTS, replace(PARAMS, ignore_eos=False, temperature=temperature))
        assert [(a.error, len(a.token_ids), len(a.chunk_ns)) for a in answers] == [(None, 3, 3)] * 5
    worker.process.communicate(timeout=30)


def test_no_engine_takes_sampling_defaults_from_the_model(tiny_model: Path, tmp_path: Path) -> None:
    """transformers; servers are told by an option (test_engine_args.py)."""
    answers = []
    for settings in ({}, {"repetition_penalty": 1.9, "do_sample": True, "top_k": 2, "max_new_tokens": 3}):
        own = tmp_path / f"model-{len(settings)}"
        shutil.copytree(tiny_model, own)
        (own / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, **settings}))
        worker = Worker("transformers", own)
        assert worker.ask({"settings": asdict(SETTINGS)}) == {"loaded": "transformers"}
        answers.append([a.token_ids for a in worker.run(PROMPTS, PARAMS)])
        worker.process.communicate(timeout=30)
    assert answers[0] == answers[1]


def test_a_worker_runs_in_an_engines_own_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path) -> None:
    own = tmp_path / "python"
    # Started elsewhere, as an engine's own environment has no ncdemo beside it.
    own.write_text(f'#!/bin/sh\ncd / && exec {sys.executable} "$@"\n')
    own.chmod(0o755)
    monkeypatch.setenv("NCDEMO_SGLANG_PYTHON", str(own))
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    what = Asked(PROMPTS, [None] * 5, [8] * 5)
    with Subject("sglang", str(tiny_model), SETTINGS, 600) as subject:
        answers = subject.measure(what, Load(kind="closed", concurrency=3), PARAMS)
    assert [len(a.token_ids) for a in answers] == [8] * 5


def test_installed_engines_agree_token_for_token(embedded: Path) -> None:
    """transformers and vLLM on the embedded model, greedy, fp32: the oracle for both adapters."""
    for engine in ("transformers", "vllm"):
        if frameworks.engine_version(engine) is None:
            pytest.skip(f"{engine} is not installed")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded)
    texts = ["What is the capital of France?", "Count to five.", "Name a colour of the rainbow."]
    prompts = []
    for i, text in enumerate(texts):
        chat = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        prompts.append(Prompt(i, tuple(tokenizer(chat, add_special_tokens=False)["input_ids"])))
    answers: dict[str, list] = {}
    for engine in ("transformers", "vllm"):
        worker = Worker(engine, embedded)
        assert worker.ask({"settings": asdict(SETTINGS)}) == {"loaded": engine}
        answers[engine] = []
        for ignore_eos in (True, False):
            params = Params(concurrency=3, max_new_tokens=24, ignore_eos=ignore_eos, temperature=0.0, seed=0)
            answers[engine].append({a.index: a.token_ids for a in worker.run(prompts, params)})
        worker.process.communicate(timeout=30)
    assert answers["transformers"] == answers["vllm"]
    assert all(tokenizer.eos_token_id not in ids for ids in answers["vllm"][1].values())


def test_the_table_the_spec_and_the_folder_name_the_same_engines() -> None:
    folder = Path(frameworks.__file__).parent
    modules = {p.stem for p in folder.glob("*.py")} - {"__init__", "base"}
    assert set(frameworks.ENGINES) == set(Engine.__args__) == modules
    for name, (module, _, extra) in frameworks.ENGINES.items():
        assert find_spec(module), name
        assert not extra or f"\n{extra} = [" in (folder.parents[2] / "pyproject.toml").read_text()


def test_a_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(frameworks.ENGINES, "vllm", ("workloads.inference.frameworks.vllm", ("not-a-distribution",), "vllm"))
    with pytest.raises(SpecError, match=r"vllm is not installed; run scripts/setup_env.sh --extra vllm"):
        frameworks.engine("vllm")


def test_a_servers_own_python_is_asked_and_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path) -> None:
    own = tmp_path / "python"
    own.symlink_to(sys.executable)  # outside this environment's folder, so with no packages of it
    monkeypatch.setenv("NCDEMO_SGLANG_PYTHON", str(own))
    assert frameworks.engine_version("sglang") is None
    # Not SGLang's, but a distribution that a Python with packages has.
    monkeypatch.setitem(frameworks.ENGINES, "sglang", ("workloads.inference.frameworks.sglang", ("not-a-distribution", "pip"), "sglang"))
    site = tmp_path / "site" / "pip-1.2.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: pip\nVersion: 1.2\n")
    monkeypatch.setenv("PYTHONPATH", str(site.parent))
    assert frameworks.engine_version("sglang") == "pip 1.2"
    assert frameworks.serve("sglang", str(tiny_model), SETTINGS, 8000).argv[0] == str(own)
    monkeypatch.setenv("NCDEMO_SGLANG_PYTHON", str(tmp_path / "nowhere"))
    assert frameworks.engine_version("sglang") is None
    with pytest.raises(SpecError, match=r"sglang is not installed; NCDEMO_SGLANG_PYTHON = '.*nowhere' is no Python that has it; name one"):
        frameworks.engine("sglang", "server")


def test_a_server_only_engine_says_so() -> None:
    with pytest.raises(SpecError, match="openai has no offline form, only server; measure it as server, or leave it out"):
        frameworks.engine("openai")
    with pytest.raises(SpecError, match="transformers has no server form, only offline"):
        frameworks.engine("transformers", "server")


def test_tensorrt_llm_is_refused_outside_its_container(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SpecError, match="tensorrt_llm is not installed; run the benchmark inside NVIDIA's TensorRT-LLM release container"):
        frameworks.serve("tensorrt_llm", str(tiny_model), SETTINGS, 8000)


def test_a_missing_model_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"model.name = '.*nowhere': no such model folder .* give a Hugging Face folder or a hub id"):
        check_model(str(tmp_path / "nowhere"))
    check_model("HuggingFaceTB/SmolLM2-135M")
