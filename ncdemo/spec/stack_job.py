"""A job of a stack: a spec file with changes, on so many nodes of a pool.

name: tune
config: workloads/configs/training/accelerate.yaml
set: {train.max_steps: 200}
pool: h100
"""

from typing import Annotated, Any

from pydantic import Field

from ncdemo.spec.base import Spec
from ncdemo.spec.common import NonEmpty, PositiveInt, text

JobName = Annotated[
    str, text(r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", "lower-case letters, digits and hyphens, at most 32, beginning with a letter")
]


class Server(Spec):
    """An inference engine in its own container beside the job's; it gets the GPUs."""

    image: Annotated[
        str, text(r"^\S+(:[A-Za-z0-9_.-]*\d[A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$", "an image with a version tag (not latest) or a digest")
    ]
    """Image with a version tag or a digest, e.g. nvcr.io/nvidia/tensorrt-llm/release:1.0.0."""
    command: tuple[NonEmpty, ...]
    """What starts the server; it must listen on `port`."""
    port: Annotated[int, Field(ge=1024, le=65535)] = 8000
    """Where it answers."""
    health_path: Annotated[str, text(r"^/\S*$", "a path that begins with /")] = "/health"
    """Answers 200 when the server is ready; the job starts then."""
    start_minutes: Annotated[int, Field(ge=1, le=120)] = 30
    """It may take so long to become ready."""

    @property
    def url(self) -> str:
        """Where the job's own container finds it."""
        return f"http://127.0.0.1:{self.port}"


class Job(Spec):
    """One run of a spec on the stack's capacity. A job that is unchanged never runs twice."""

    name: JobName
    """Begins the name of what runs; a hash of all that decides the run ends it."""
    config: NonEmpty
    """Spec file, from the project's folder; kind: train or kind: bench."""
    set: dict[NonEmpty, Any] = {}
    """Dotted keys of the spec and their values, as `--set` takes them."""
    pool: NonEmpty | None = None
    """Where it runs (null: the only pool; on a cluster that exists, any node that kubernetes.node_selector allows)."""
    nodes: PositiveInt = 1
    """Machines that train together; a benchmark takes one."""
    gpus: Annotated[int, Field(ge=0)] | None = None
    """Of each node, and ranks there (null: all of the pool's; without a pool, 1)."""
    deadline_h: Annotated[float, Field(gt=0, le=720)] | None = None
    """It is ended after so long (null: cost_guard.job_deadline_h)."""
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """Starts again after a failure; evictions don't count."""
    scratch_gib: PositiveInt = 100
    """Disk for caches and the run's own files, on the node's OS disk."""
    suspend: bool = False
    """Declared, but not started: someone, or a queue, starts it later."""
    server: Server | None = None
    """Engine in its own container, for what can't live in the job's image."""
