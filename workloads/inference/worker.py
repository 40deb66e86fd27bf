"""One engine with one model in a process of its own, so that engines share neither memory, threads nor imports.

subject.py starts it and talks to it in JSON lines: {"settings"} -> {"loaded"}, then {"prompts", "params"} -> {"answers"}.
A failure is {"error", "kind"}. Engines print to stdout as they like; the answers go through a copy of it that they don't know.
A third argument is the file descriptor through which ended requests are counted (ended.py).
"""

import ctypes
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import Any

from ncdemo.spec.base import SpecError
from workloads.inference.ended import share
from workloads.inference.frameworks import engine
from workloads.inference.frameworks.base import ModelMissing, Params, Prompt, Settings, check_model


def main() -> None:
    _end_with_parent()
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    name, path, *counter = sys.argv[1:]
    if counter:
        share(int(counter[0]))

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")

    model: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if model is None:
                module = engine(name)
                check_model(path)
                model = module.load(path, Settings(**request["settings"]))
                reply({"loaded": name})
            else:
                prompts = [Prompt(index, tuple(ids)) for index, ids in request["prompts"]]
                answers = module.run(prompts, model, Params(**request["params"]))
                reply({"answers": [asdict(a) for a in answers]})
        except Exception as error:  # whatever an engine raises is the cell's recorded failure, and the sweep goes on
            import traceback

            traceback.print_exc()
            reply({"error": str(error) if isinstance(error, SpecError) else f"{type(error).__name__}: {error}", "kind": _kind(error)})
            if model is None:
                return


def _kind(error: Exception) -> str:
    """Return the class of a failure, as in Cell.failure."""
    if isinstance(error, SpecError):
        return "model_missing" if isinstance(error, ModelMissing) else "engine_missing"
    # torch's OutOfMemoryError is a RuntimeError of its own, and engines wrap it: the words are what they share.
    return "out_of_memory" if isinstance(error, MemoryError) or "out of memory" in str(error).lower() else "engine_error"


def _end_with_parent() -> None:
    """Be killed when the harness is: an engine that works on would disturb the run that is resumed."""
    if sys.platform == "linux":
        set_pdeathsig = 1  # <linux/prctl.h>
        ctypes.CDLL(None).prctl(set_pdeathsig, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main()
