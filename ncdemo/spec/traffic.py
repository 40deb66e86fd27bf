"""Traffic: when a benchmark's requests are sent, and how long they are. The parts of BenchSpec that say what a cell's load is."""

import math
from statistics import NormalDist
from typing import Literal, Self

from pydantic import Field, model_validator

from ncdemo.spec.base import Spec
from ncdemo.spec.common import NonEmpty, PositiveInt

Process = Literal["constant", "poisson", "gamma"]


class Arrivals(Spec):
    """An open loop: requests are sent at these mean rates, whether earlier ones have ended or not."""

    rates_rps: tuple[float, ...] = Field(min_length=1)
    """Mean requests per second; each rate is a load of its own."""
    process: Process = "poisson"
    """Gaps between sends: all equal, exponential, or gamma-distributed with a burstiness."""
    burstiness: float | None = Field(default=None, gt=0)
    """Shape of the gamma gaps: 1 is Poisson, lower is burstier; their coefficient of variation is burstiness ** -0.5."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(rate <= 0 for rate in self.rates_rps):
            raise ValueError("rates_rps: every rate must be greater than 0; leave arrivals out for a closed loop")
        if len(set(self.rates_rps)) != len(self.rates_rps):
            raise ValueError("rates_rps names a value twice; list each once")
        if (self.process == "gamma") != (self.burstiness is not None):
            raise ValueError("burstiness belongs to process: gamma, which needs it; correct one of them")
        return self


class Trace(Spec):
    """Replay of recorded traffic: its times, prompt lengths and output lengths."""

    file: NonEmpty
    """CSV in Azure's or BurstGPT's form, or JSON Lines in Mooncake's, whose hash_ids say which prompts begin alike; plain or gzipped.
    A path from the working directory, else from the ncdemo checkout."""
    scale: float = Field(default=1.0, gt=0)
    """2 replays the trace twice as fast."""


class Lengths(Spec):
    """Prompts synthesised to an exact token count with the model's own tokenizer, instead of a file's."""

    input_tokens: PositiveInt
    """Tokens of every prompt."""
    output_tokens: PositiveInt
    """Tokens of every answer."""

    @property
    def shown(self) -> str:
        return f"{self.input_tokens} to {self.output_tokens} tokens"


class Search(Spec):
    """Look for the highest rate whose share of good requests is at least `attainment`, on its Wilson lower bound, for `min_duration_s`."""

    start_rps: float = Field(default=1.0, gt=0)
    """The first rate; it is doubled or halved until the answer is bracketed, then the bracket is halved."""
    attainment: float = Field(default=0.99, gt=0, lt=1)
    """Share of requests that must meet every objective."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the Wilson lower bound (one-sided)."""
    min_duration_s: float = Field(default=60.0, gt=0, le=86400)
    """Seconds for which each rate is sent at least: prompts.count requests, or rate x min_duration_s where that is more. A burst that fits
    into an engine's batch meets every objective, whatever its rate. Three times what an answer takes at the least, or more."""
    tolerance: float = Field(default=0.05, gt=0, lt=1)
    """Stop when the bracket is this narrow, relative to its lower end."""
    max_runs: PositiveInt = 12
    """Cells of one search at most."""
    process: Literal["constant", "poisson"] = "poisson"
    """Gaps between sends."""

    @property
    def least_requests(self) -> int:
        """How many requests a cell needs, so that it passes when all of them are good: n / (n + z^2) >= attainment."""
        z = NormalDist().inv_cdf(self.confidence)
        return math.ceil(z * z * self.attainment / (1 - self.attainment))


class Load(Spec):
    """One load of a sweep, resolved: what a cell's requests are sent by."""

    kind: Literal["closed", "constant", "poisson", "gamma", "trace"]
    concurrency: int | None = None
    rate_rps: float | None = None
    burstiness: float | None = None
    scale: float | None = None
    search: bool = False
    """Chosen by a search."""

    @property
    def shown(self) -> str:
        if self.kind == "closed":
            return f"concurrency {self.concurrency}"
        if self.kind == "trace":
            return f"trace x {self.scale:g}"
        burst = f" (burstiness {self.burstiness:g})" if self.burstiness is not None else ""
        return f"{self.kind} {self.rate_rps:g} req/s{burst}{', searched' if self.search else ''}"
