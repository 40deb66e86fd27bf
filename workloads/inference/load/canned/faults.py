"""What the canned server can do wrong, and which requests it does it to.

A request's own word comes first: the JSON field `canned_fault`, or the header X-Canned-Fault. Else the n-th request draws from
the probabilities with random.Random("SEED:n"), so the totals of n requests are the same in each run, whatever their order.
"""

import random
from collections.abc import Sequence

from ncdemo.spec.base import SpecError

# fault -> what the client must call it (workloads.inference.load.failures); None: the request is fine all the same.
FAULTS: dict[str, str | None] = {
    "close_early": "closed_early",  # closes without a byte
    "truncate": "truncated",  # closes after half of the tokens
    "no_done": "truncated",  # ends the stream in good form after half of the tokens, without finish_reason and [DONE]
    "http_400": "http_4xx",
    "http_429": "http_429",
    "http_500": "http_5xx",
    "malformed": "malformed",  # one event in the middle isn't JSON
    "bad_framing": "malformed",  # a chunk's size isn't a number
    "negative_size": "malformed",  # a chunk's size is a negative number
    "odd_choice": "malformed",  # one event in the middle has null for a choice
    "odd_usage": "malformed",  # the usage counts in words
    "error_event": "error_event",  # an event in the middle is an error object
    "hang": "timeout",  # never answers
    "hang_mid": "timeout",  # stops after half of the tokens
    "no_token": "no_token",  # a stream in good form without a token
    "multi_token": None,  # four tokens in each event
    "empty_first": None,  # the role chunk comes at once, without content
    "no_usage": None,  # leaves out the usage chunk
}


def parse(options: Sequence[str]) -> dict[str, float]:
    """Return fault -> probability from KIND=P options."""
    chances: dict[str, float] = {}
    for option in options:
        kind, _, text = option.partition("=")
        try:
            chance = float(text)
        except ValueError:
            chance = -1.0
        if kind not in FAULTS or not 0 <= chance <= 1:
            raise SpecError(f"--fault {option}: give KIND=P with P from 0 to 1 and KIND one of {', '.join(FAULTS)}")
        chances[kind] = chance
    if sum(chances.values()) > 1:
        raise SpecError(f"--fault: the probabilities add up to {sum(chances.values()):g}; lower them to at most 1 in all")
    return chances


def drawn(chances: dict[str, float], seed: int, ordinal: int) -> str | None:
    """Return the fault of the ordinal-th request, or None."""
    point = random.Random(f"{seed}:{ordinal}").random()
    for kind, chance in chances.items():
        point -= chance
        if point < 0:
            return kind
    return None
