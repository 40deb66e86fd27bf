"""Options of the canned server; `python -m workloads.inference.load.canned --help` says them all."""

import argparse
import gc
import json
import os
import signal
import sys
from contextlib import ExitStack

from ncdemo.spec.base import SpecError
from workloads.inference.load.canned.answers import Config
from workloads.inference.load.canned.faults import FAULTS, parse
from workloads.inference.load.canned.server import Server
from workloads.inference.load.connection import allow_many


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workloads.inference.load.canned", description="Serve canned streams of tokens.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one; the first line on stdout says which")
    parser.add_argument("--ttft-ms", type=float, default=0.0, help="first token this long after the request (default: at once)")
    parser.add_argument("--itl-ms", type=float, default=0.0, help="further tokens this far apart (default: as fast as it can)")
    parser.add_argument("--capacity-tps", type=float, help="tokens per second that all streams share, instead of a pace of each")
    parser.add_argument("--burst", type=int, default=1, help="events in one send (default: 1)")
    parser.add_argument("--always-usage", action="store_true", help="send the usage chunk even when not asked for")
    parser.add_argument("--model", default="canned", help="name in /v1/models; requests may name any")
    parser.add_argument("--max-model-len", type=int, help="refuse longer prompt + output with a 400")
    parser.add_argument("--own-length", type=int, metavar="N", help="end every answer after N tokens at most, as a model's own end does")
    parser.add_argument("--key-env", metavar="NAME", help="answer 401 without the bearer key that this environment variable holds")
    parser.add_argument("--chat-only", action="store_true", help="have no /v1/completions, which answers 404 then")
    parser.add_argument("--strict", action="store_true", help="refuse fields that OpenAI's own protocol lacks with a 400")
    parser.add_argument("--fault", action="append", default=[], metavar="KIND=P", help=f"P of 0 to 1; KIND of {', '.join(FAULTS)}; repeat")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--stall-at-s", type=float, help="freeze the whole server this long after its first request ...")
    parser.add_argument("--stall-s", type=float, default=0.0, help="... for this long")
    parser.add_argument("--exit-at", type=int, metavar="N", help="end the process, with 9, when request N + 1 comes")
    parser.add_argument("--log", metavar="FILE", help="JSON Lines: of each request its number, id, fault, received_ns, send_ns, tokens")
    args = parser.parse_args()
    if args.capacity_tps is not None and (args.capacity_tps <= 0 or args.ttft_ms or args.itl_ms):
        parser.error("--capacity-tps: must be above 0 and alone decide the pace; leave --ttft-ms and --itl-ms out")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    allow_many()
    with ExitStack() as stack:
        key = os.environ.get(args.key_env or "")
        if args.key_env and not key:
            sys.exit(f"error: --key-env {args.key_env}: that environment variable is empty; export the key in it")
        del args.key_env
        options = vars(args) | {"key": key} | {"log": stack.enter_context(open(args.log, "w", encoding="utf-8")) if args.log else None}
        try:
            server = Server(Config(chances=parse(options.pop("fault")), **options))
        except (SpecError, OSError) as error:
            sys.exit(f"error: {error}")
        print(json.dumps({"url": server.url, "pid": os.getpid()}), flush=True)
        gc.freeze()
        gc.disable()  # nothing here is cyclic, and a collection would be a pause that no schedule knows of
        server.serve()


if __name__ == "__main__":
    main()
