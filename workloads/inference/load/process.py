"""One process of a load. run.py starts it: python -m workloads.inference.load.process

It takes a pickled Share from stdin and says "ready" when its connections are open, runs from the common start that it is then
told, and hands back answers and its own cost. Both ends are ours, so they speak pickle.
"""

import ctypes
import gc
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from typing import BinaryIO

from workloads.inference.frameworks.base import Answer
from workloads.inference.load.client import Client
from workloads.inference.load.connection import allow_many
from workloads.inference.load.parse import answer
from workloads.inference.load.share import START, Cost, Share

PROGRESS_S = 0.5


def main() -> None:
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    share: Share = pickle.load(sys.stdin.buffer)
    _end_with(share.parent)
    allow_many()
    if share.core is not None:
        os.sched_setaffinity(0, {share.core})
    client = Client(share.target, share.requests, share.due_ns, share.concurrency, on_tick=_teller(replies))
    client.pool.connect_ahead(share.connections)
    _tell(replies, "ready", None)
    (start_ns,) = START.unpack(sys.stdin.buffer.read(START.size))
    _tell(replies, "answers", drive(client, start_ns))


def drive(client: Client, start_ns: int) -> tuple[list[Answer], Cost]:
    """Run a client from start_ns on and read what came; return answers and what that cost."""
    ahead = client.pool.opened
    exchanges = client.run(start_ns)
    end_ns, cpu_window = time.perf_counter_ns(), time.process_time()
    in_window = client.pool.opened - ahead
    client.close()
    gc.disable()  # what is made here lives to the end
    read = [answer(exchange) for exchange in exchanges]
    cost = Cost(
        window_s=(end_ns - start_ns) / 1e9, cpu_window_s=cpu_window - client.began_cpu_s, cpu_parse_s=time.process_time() - cpu_window,
        events=sum(events for _, events in read), reads=sum(len(e.log) // 2 for e in exchanges),
        opened=client.pool.opened, opened_in_window=in_window, hung=client.hung,
    )  # fmt: skip
    return [a for a, _ in read], cost


def _tell(replies: BinaryIO, kind: str, value: object) -> None:
    pickle.dump((kind, value), replies, protocol=pickle.HIGHEST_PROTOCOL)
    replies.flush()


def _teller(replies: BinaryIO) -> Callable[[int], None]:
    """Return what tells the number of ended requests, twice a second at most."""
    said_s, said = 0.0, 0

    def tick(done: int) -> None:
        nonlocal said_s, said
        if done != said and time.monotonic() - said_s > PROGRESS_S:
            said_s, said = time.monotonic(), done
            _tell(replies, "done", done)

    return tick


def _end_with(parent: int) -> None:
    """Be killed when the parent ends, however that happens: a load must not go on without anyone to tell."""
    pr_set_pdeathsig = 1  # <linux/prctl.h>
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent ended before the start")


if __name__ == "__main__":
    main()
