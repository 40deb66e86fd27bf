"""A load by hand: python -m workloads.inference.load --url http://127.0.0.1:8000 --model NAME --requests 200 --concurrency 16

Prints one JSON object: what the requests saw, and what the client itself did. A benchmark with prompts of an exact length,
repeats and gates is `ncdemo bench`.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError
from workloads.inference.frameworks.base import Answer, Params
from workloads.inference.load.plan import Plan, Target, body, request
from workloads.inference.load.run import run
from workloads.inference.load.schedule import closed, gamma
from workloads.inference.metrics import distribution


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workloads.inference.load", description="Load an OpenAI-compatible endpoint.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True, help="name of the model in the requests")
    parser.add_argument("--endpoint", choices=("chat", "completions"), default="chat")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=8, help="requests in flight (closed loop)")
    parser.add_argument("--rate", type=float, metavar="RPS", help="an open loop instead: so many a second, Poisson unless --burstiness")
    parser.add_argument("--burstiness", type=float, default=1.0, help="of the open loop's gaps: 1 Poisson, lower is burstier (default: 1)")
    parser.add_argument("--words", type=int, default=64, help="length of the prompts, roughly in tokens (default: 64)")
    parser.add_argument("--tokens", type=int, default=64, help="output tokens of each request (default: 64)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--timeout-s", type=float, default=600.0)
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with the bearer key")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write every answer with its stamps, as JSON Lines")
    args = parser.parse_args()
    try:
        print(json.dumps(_load(args), indent=1))
    except SpecError as error:
        sys.exit(f"error: {error}")


def _load(args: argparse.Namespace) -> dict[str, Any]:
    target = Target(args.url, args.model, args.endpoint, api_key_env=args.api_key_env, timeout_s=args.timeout_s)
    params = Params(args.concurrency, args.tokens, ignore_eos=True, temperature=0.0, seed=0)
    # Distinct from the first word on, also between two loads: no prefix cache knows them.
    once = time.time_ns()
    prompts = (f"{once + i} " + "word " * (args.words - 1) for i in range(args.requests))
    requests = tuple(request(target, i, body(target, params, prompt=prompt)) for i, prompt in enumerate(prompts))
    schedule = closed(args.concurrency) if args.rate is None else gamma(args.rate, args.burstiness, args.requests, seed=0)
    result = run(Plan(target, requests, schedule, args.processes))
    if args.save is not None:
        args.save.write_text("".join(json.dumps(asdict(answer)) + "\n" for answer in result.answers))
    return summary(result.answers) | {"client": asdict(result.report)}


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return counts and order statistics; gaps (icl_s) are those between chunks with tokens."""
    done = [a for a in answers if a.failure is None]
    ttft = [(a.chunk_ns[0] - a.sent_ns) / 1e9 for a in done]
    due = [(a.chunk_ns[0] - a.scheduled_ns) / 1e9 for a in done]
    gaps = [(b - a) / 1e9 for answer in done for a, b in pairwise(answer.chunk_ns)]
    shown = {"ttft_s": ttft, "ttft_from_schedule_s": due, "icl_s": gaps}
    return {
        "requests": len(answers),
        "finished": len(done),
        "failed": dict(Counter(a.failure for a in answers if a.failure)),
        "chunks": sum(len(a.chunk_ns) for a in done),
        **{name: d.model_dump() if (d := distribution(values)) else None for name, values in shown.items()},
    }


if __name__ == "__main__":
    main()
