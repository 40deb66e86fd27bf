"""What an engine's server says of itself: a line per look at its metrics, and what a cell came to by them."""

from ncdemo.spec.record import Record


class EngineSample(Record):
    """One answer of an engine's own /metrics while a cell was measured. What it doesn't say is None."""

    time_s: float
    """Seconds since the run's clock zero."""
    engine: str
    model: str
    variant: str | None = None
    running: float | None = None
    """Requests that the engine works on."""
    waiting: float | None = None
    """Requests in its queue."""
    kv_cache_used: float | None = None
    """Share of its key-value cache, 0 to 1; of several ranks the fullest."""
    prompt_tokens: float | None = None
    """Counter since its start, as the three after it."""
    cached_prompt_tokens: float | None = None
    """Of the prompt tokens those that it found in its prefix cache."""
    output_tokens: float | None = None
    preemptions: float | None = None
    """Requests put back into the queue for want of cache (SGLang: retracted)."""


class EngineCounts(Record):
    """What the engine itself says of a cell: its counters' growth from before the load to after it, and looks at its queue between."""

    prompt_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    """Of these those that it found in its prefix cache."""
    output_tokens: int | None = None
    preemptions: int | None = None
    looks: int = 0
    """How often its queue was looked at; the figures below are of these moments alone."""
    running_max: float | None = None
    waiting_max: float | None = None
    waiting_mean: float | None = None
    kv_cache_used_max: float | None = None
    """Share of the key-value cache, 0 to 1."""
