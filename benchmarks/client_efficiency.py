"""Streamed token events that a load generator handles per second of CPU: ours and its peers, one after another in one run.

A canned server in another process answers as fast as it can, one token in each event. Each tool runs twice, short and long: the
difference in tokens served over the difference in CPU seconds of the tool and all its processes leaves its start-up out. Bar: ours
is at least five times the best of the peers'.

The server sends four events at a time, so that it outruns every client. With one at a time (--burst 1) it outruns the peers only:
they find several events in a read, while ours, which waits for the server, pays a system call for each.

    python -m benchmarks.client_efficiency        # peers that aren't installed are left out; load_tools.py says how to get them
"""

import argparse
import json
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load_tools import Job, canned, commands, run, tokens_served, version
from benchmarks.machine import machine
from workloads.data.embedded_model import embedded_model

BAR = 5.0
OURS = "ncdemo"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_efficiency", description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--short", type=int, default=256, help="requests of the short run (default: 256)")
    parser.add_argument("--long", type=int, default=3072, help="requests of the long run (default: 3072)")
    parser.add_argument("--burst", type=int, default=4, help="events in one send of the server (default: 4)")
    parser.add_argument("--tools", nargs="*", help="only these")
    parser.add_argument("--repeats", type=int, default=3, help="of ours, whose runs take a second (default: 3; the median counts)")
    args = parser.parse_args()
    tools: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as name, canned("--burst", str(args.burst)) as url:
        folder, tokenizer = Path(name), embedded_model()
        for tool in commands(Job(url, tokenizer, folder, 1, 1, 1)):
            if args.tools is None or tool in args.tools:
                runs = [_pair(tool, url, tokenizer, folder, args) for _ in range(args.repeats if tool == OURS else 1)]
                tools[tool] = {"version": version(tool), "cpu_us_per_event": round(1e6 / statistics.median(runs), 2),
                               "events_per_cpu_s": round(statistics.median(runs)), "runs": [round(r) for r in runs]}  # fmt: skip
                print(tool, tools[tool], flush=True)
    peers = [float(str(row["events_per_cpu_s"])) for tool, row in tools.items() if tool != OURS]
    ratio = float(str(tools[OURS]["events_per_cpu_s"])) / max(peers) if peers and OURS in tools else None
    print(json.dumps({"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "streams": args.streams, "burst": args.burst,
                      "tokens_per_request": args.tokens, "tools": tools, "ours_over_best_peer": ratio, "bar": BAR}, indent=1))  # fmt: skip


def _pair(tool: str, url: str, tokenizer: Path, folder: Path, args: argparse.Namespace) -> float:
    """Return token events per CPU second between a short and a long run."""
    used = []
    for requests in (args.short, args.long):
        before = tokens_served(url)
        cpu_s = run(commands(Job(url, tokenizer, folder, requests, args.streams, args.tokens))[tool], folder / "log.txt")
        used.append((tokens_served(url) - before, cpu_s))
    (short_events, short_s), (long_events, long_s) = used
    return (long_events - short_events) / (long_s - short_s)


if __name__ == "__main__":
    main()
