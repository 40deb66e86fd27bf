"""Short ways to a plan against the canned server."""

from workloads.inference.frameworks.base import Params
from workloads.inference.load.plan import Plan, Target, body, request
from workloads.inference.load.schedule import Closed, Open

PARAMS = Params(concurrency=1, max_new_tokens=8, ignore_eos=True, temperature=0.0, seed=0)


def plan(url: str, count: int, schedule: Closed | Open, *, tokens: int = 8, processes: int = 1, timeout_s: float = 20.0,
         endpoint: str = "chat", connections: int | None = None, **fields: object) -> Plan:  # fmt: skip
    """Return a plan of `count` requests, alike but for their number."""
    target = Target(url, "m", endpoint, timeout_s=timeout_s, fields={"max_tokens": tokens, **fields})  # type: ignore[arg-type]
    requests = tuple(request(target, i, body(target, PARAMS, prompt=f"request {i}")) for i in range(count))
    return Plan(target, requests, schedule, processes=processes, connections=connections)
