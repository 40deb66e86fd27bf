"""Do the client's stamps say when the server sent? 256 streams, 20 ms to the first token and 20 ms between tokens.

The canned server keeps that schedule and logs its own send stamps; both clocks are one. For each tool the percentiles of TTFT and
of the gaps between tokens are set against the server's own, over the same requests; for ours every single stamp too. A client that
is late reports its own delay as the server's. Bars: errors of at most 1 ms (p50) and 2 ms (p99), and at most half the best peer's.

    python -m benchmarks.client_truth
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.load_tools import Job, canned, commands, run, version
from benchmarks.machine import machine
from workloads.data.embedded_model import embedded_model


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_truth", description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--requests", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--tools", nargs="*", help="only these")
    args = parser.parse_args()
    rows: dict[str, Any] = {}
    tokenizer = embedded_model()
    for tool in commands(Job("", tokenizer, Path(), 1, 1, 1)):
        if args.tools is None or tool in args.tools:
            rows[tool] = _measure(tool, tokenizer, args) | {"version": version(tool)}
            print(tool, json.dumps(rows[tool]), flush=True)
    shown = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), **vars(args), "tools": rows}
    print(json.dumps(shown, indent=1))


def _measure(tool: str, tokenizer: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run a tool against a server of its own; return the server's percentiles, the tool's, and their differences, in ms."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "sends.jsonl"
        with canned("--ttft-ms", "20", "--itl-ms", "20", "--log", str(log)) as url:
            job = Job(url, tokenizer, folder, args.requests, args.streams, args.tokens)
            extra = ["--save", str(folder / "answers.jsonl")] if tool == "ncdemo" else []
            run(commands(job)[tool] + extra, folder / "log.txt")
        sends = [json.loads(line) for line in log.read_text().splitlines()]
        # A tool may send a request or more to warm up; those come first.
        sends = [s for s in sends if len(s["send_ns"]) == args.tokens][-args.requests :]
        truth = _percentiles([(s["send_ns"][0] - s["received_ns"]) / 1e6 for s in sends],
                             [(b - a) / 1e6 for s in sends for a, b in pairwise(s["send_ns"])])  # fmt: skip
        said = READERS[tool](folder)
        stamps = _stamps(folder / "answers.jsonl", sends) if extra else {}
    errors = {key: round(said[key] - truth[key], 3) for key in truth if said.get(key) is not None}
    return {"truth_ms": truth, "reported_ms": {k: v and round(v, 3) for k, v in said.items()}, "error_ms": errors} | stamps


def _stamps(path: Path, sends: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how much later than its send each single chunk is stamped by our client, and by how much each gap is wrong."""
    sent = {int(s["request_id"]): s for s in sends}
    late, gaps = [], []
    for answer in map(json.loads, path.read_text().splitlines()):
        errors = [(a - s) / 1e6 for a, s in zip(answer["chunk_ns"], sent[answer["index"]]["send_ns"], strict=True)]
        late += errors
        gaps += [abs(b - a) for a, b in pairwise(errors)]
    return {"stamps_late_ms": {f"p{p}": round(sorted(late)[len(late) * p // 100], 3) for p in (0, 50, 99)},
            "gaps_wrong_ms": {f"p{p}": round(sorted(gaps)[len(gaps) * p // 100], 3) for p in (50, 99)}}  # fmt: skip


def _percentiles(ttft: Sequence[float], itl: Sequence[float]) -> dict[str, float]:
    ranked = {"ttft": sorted(ttft), "itl": sorted(itl)}
    return {
        f"{name}_p{p}": round(values[min(len(values) - 1, len(values) * p // 100)], 3) for name, values in ranked.items() for p in (50, 99)
    }


def _ours(folder: Path) -> dict[str, float]:
    said = json.loads((folder / "log.txt").read_text())
    return {f"{ours}_{p}": said[theirs][p] * 1e3 for ours, theirs in (("ttft", "ttft_s"), ("itl", "icl_s")) for p in ("p50", "p99")}


def _vllm(folder: Path) -> dict[str, float]:
    said = json.loads((folder / "vllm.json").read_text())
    return _percentiles([t * 1e3 for t in said["ttfts"]], [gap * 1e3 for gaps in said["itls"] for gap in gaps])


def _aiperf(folder: Path) -> dict[str, float]:
    said = json.loads(next((folder / "aiperf").rglob("profile_export_aiperf.json")).read_text())
    names = (("ttft", "time_to_first_token"), ("itl", "inter_chunk_latency"))
    return {f"{ours}_{p}": said[theirs][p] for ours, theirs in names if theirs in said for p in ("p50", "p99")}


def _guidellm(folder: Path) -> dict[str, float]:
    metrics = json.loads((folder / "guidellm.json").read_text())["benchmarks"][0]["metrics"]
    names = (("ttft", "time_to_first_token_ms"), ("itl", "inter_token_latency_ms"))
    return {f"{ours}_{p}": metrics[theirs]["successful"]["percentiles"][p] for ours, theirs in names for p in ("p50", "p99")}


READERS = {"ncdemo": _ours, "vllm bench serve": _vllm, "aiperf": _aiperf, "guidellm": _guidellm}

if __name__ == "__main__":
    main()
