"""What a spec says of the client and of a server's arguments reaches them, and the result says what really ran."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ncdemo.spec import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.traffic import Load
from tests.inference.conftest import Swept
from workloads.inference.asked import Asked
from workloads.inference.frameworks import serve
from workloads.inference.frameworks.base import Params, Prompt, Serve, Settings
from workloads.inference.load.ceiling import Ceiling
from workloads.inference.load.plan import Plan, Request, Target
from workloads.inference.load.schedule import closed
from workloads.inference.served import ClientOptions, Served, processes_needed
from workloads.inference.servers.command import served_versions, write_command
from workloads.inference.servers.server import Server
from workloads.inference.servers.watch import EngineLines
from workloads.records import Records

SETTINGS = Settings("fp32", 256, 0.4, 8)
ASKED = Asked([Prompt(i, (1, 2, 3)) for i in range(12)], [None] * 12, [4] * 12)
CORES = len(os.sched_getaffinity(0))
NARROW, WIDE = Ceiling("", 1.0, 1.0), Ceiling("", 1e12, 1e12)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    """Start the canned server as a subject, in this process."""
    monkeypatch.setenv("NCDEMO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text("{}")
    open_ones: list[Served] = []

    def start(engine: str = "echo", *, top: Ceiling = WIDE, processes: object = "auto", **settings) -> Served:
        lines = EngineLines(Records(tmp_path, print).append, 0, engine=engine, model="m", variant=None)
        client = ClientOptions(top, processes)
        own = tmp_path / "servers" / engine
        open_ones.append(Served(engine, str(tmp_path), Settings("fp32", 256, 0.4, 8, **settings), own, client, lines, 0.0, 60.0))
        return open_ones[-1]

    yield start
    for one in open_ones:
        one.__exit__()


def measure(subject: Served, concurrency: int = 4) -> None:
    answers = subject.measure(ASKED, Load(kind="closed", concurrency=concurrency), Params(concurrency, 4, True, 0.0, 0))
    assert isinstance(answers, list), answers
    assert sorted(a.index for a in answers if a.error is None) == list(range(12))


def test_a_client_at_its_limit_gets_more_processes_once_and_says_so(served: Callable[..., Served]) -> None:
    auto = served(top=NARROW)
    measure(auto)
    assert auto.client.processes == min(CORES, 4)
    assert (auto.client.headroom_of_one < 0) == (CORES > 1)
    measure(auto, concurrency=1)
    assert (auto.client.processes, auto.client.headroom_of_one) == (1, None), "one request at a time can't be shared out"
    fixed = served(top=NARROW, processes=3)
    measure(fixed)
    assert (fixed.client.processes, fixed.client.headroom_of_one) == (3, None)


@pytest.mark.parametrize(
    ("headroom", "concurrency", "expected"), [(0.5, 64, 1), (0.49, 64, 4), (None, 64, 1), (-0.6, 64, 8), (0.1, 3, 3), (0.1, 1, 1)]
)
def test_how_many_processes_a_cell_needs(monkeypatch: pytest.MonkeyPatch, headroom: float | None, concurrency: int, expected: int) -> None:
    from ncdemo.spec.result_bench import Client

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    client = Client(processes=1, cpu_share=0.1, events_per_s=1.0, headroom=headroom, max_lateness_s=0.0)
    plan = Plan(Target("http://127.0.0.1:1", "m"), tuple(Request(i, b"") for i in range(100)), closed(concurrency))
    assert processes_needed(client, plan) == expected


def test_the_real_command_is_in_the_results_without_secrets(
    served: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "hidden-one")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    measure(served(server_args=("--itl-ms", "1")))
    text = (tmp_path / "servers" / "echo" / "command.json").read_text()
    said = json.loads(text)
    assert said["argv"][1:3] == ["-m", "workloads.inference.load.canned"]
    assert said["argv"][-2:] == ["--itl-ms", "1"]
    assert (said["inherited_env"]["VLLM_CPU_KVCACHE_SPACE"], said["inherited_env"]["VLLM_API_KEY"]) == ("3", "***")
    assert "hidden-one" not in text
    assert said["version"]
    assert served_versions(tmp_path) == {}, "the version of what we start is the installed one"


def test_a_disk_that_takes_no_command_costs_no_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = tmp_path / "full"
    full.write_text("no folder can be here")
    write_command(full, "echo", Server(Serve((), "http://127.0.0.1:1", "m"), tmp_path))
    assert "what the server was started with is not in the results" in caplog.text


def test_a_server_that_never_started_has_left_its_command(served: Callable[..., Served], tmp_path: Path) -> None:
    broken = served(server_args=("--no-such-option",))
    assert broken.failed.kind == "load_failed"
    assert "--no-such-option" in json.loads((tmp_path / "servers" / "echo" / "command.json").read_text())["argv"]


def test_an_endpoint_is_asked_for_its_version_and_loaded_once(
    served: Callable[..., Served], endpoint: Callable[..., str], tmp_path: Path
) -> None:
    from ncdemo import __version__

    outside = served("openai", top=NARROW, endpoint_url=endpoint())
    measure(outside)
    assert (outside.client.processes, outside.client.headroom_of_one) == (1, None), "its cache may have the prompts by then"
    assert served_versions(tmp_path) == {"openai": f"canned {__version__}"}


@pytest.mark.parametrize("word", ["--max-model-len", "--max_model_len=9", "--no-max-model-len"])
def test_an_argument_that_ncdemo_sets_itself_is_refused(tmp_path: Path, word: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    said = f"server_args.echo: {word} is set by ncdemo already; use the benchmark's own key for it, and remove it here"
    with pytest.raises(SpecError, match=said):
        serve("echo", str(tmp_path), Settings("fp32", 256, 0.4, 8, server_args=(word,)), 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engines": ["vllm"], "server_args": {"sglang": ["--x"]}}, "server_args: sglang is not in engines; add it there, or remove"),
        ({"mode": "offline", "engines": ["transformers"], "server_args": {"transformers": ["--x"]}}, "server_args: transformers has no server"),
        ({"engines": ["openai"], "url": "http://h", "server_args": {"openai": ["--x"]}}, "server_args: openai is an endpoint that runs already"),
        ({"mode": "offline", "engines": ["vllm"], "server_args": {"vllm": ["--x"]}}, "server_args: vllm takes none in mode: offline; set mode"),
        ({"engines": ["vllm"], "client_processes": 0}, "client_processes"),
        ({"engines": ["vllm"], "server_args": {"nobody": ["--x"]}}, "server_args"),
    ],
)  # fmt: skip
def test_arguments_for_nobody_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BenchSpec.model_validate_json(json.dumps({"mode": "server", **changes}))


def test_arguments_are_part_of_the_hash_and_sglang_takes_them_offline_too() -> None:
    def spec(**changes) -> BenchSpec:
        return BenchSpec.model_validate_json(json.dumps({"engines": ["sglang"], **changes}))

    own = spec(server_args={"sglang": ["--a"]})
    assert own.spec_hash() != spec().spec_hash()
    assert (own.args_of("sglang"), own.args_of("vllm")) == (("--a",), ())


def test_a_sweep_with_its_own_arguments_moves_within_a_cell(swept: Callable[..., Swept], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCDEMO_PROGRESS", "1")
    done = swept(server_args={"echo": ["--ttft-ms", "400"]}, client_processes=2)
    assert done.code == 0, done.said
    (cell,) = done.cells
    assert (cell.client.processes, cell.ttft_s.min > 0.39) == (2, True)
    assert done.record.bench.server_args == {"echo": ["--ttft-ms", "400"]}
    told = [json.loads(line) for line in done.told.splitlines()]
    within = [m for m in told if 0 < m["done"] < 1]
    assert within, "24 requests, 8 at once, take 1.2 s; a client tells twice a second"
    assert [m["done"] for m in told] == sorted(m["done"] for m in told)
    assert all(m["done"] == m["requests"] / 24 for m in within)
