"""One engine with one model in a process of its own, so that engines share neither memory, threads nor imports.

bench.py starts it and talks to it in JSON lines: {"settings"} -> {"loaded"}, then {"prompts", "params"} -> {"answers"}.
Engines print to stdout as they like; the answers go through a copy of it that they don't know.
"""

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from workloads.inference.frameworks import engine
from workloads.inference.frameworks.base import Params, Prompt, Settings


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    name, path = sys.argv[1:3]

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")

    model: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if model is None:
                module = engine(name)
                model = module.load(path, Settings(**request["settings"]))
                reply({"loaded": name})
            else:
                prompts = [Prompt(index, tuple(ids)) for index, ids in request["prompts"]]
                answers = module.run(prompts, model, Params(**request["params"]))
                reply({"answers": [asdict(a) for a in answers]})
        except Exception as error:  # whatever an engine raises is the cell's recorded failure, and the sweep goes on
            import traceback

            traceback.print_exc()
            reply({"error": f"{type(error).__name__}: {error}"})
            if model is None:
                return


if __name__ == "__main__":
    main()
