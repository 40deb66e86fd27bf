"""A stack's config file to a checked stack: the capacity, and every job with the spec that it runs.

stack = load_stack("stacks/Pulumi.aks-dev.yaml")
stack.jobs[0].run          # a TrainSpec or a BenchSpec, its changes applied

Pulumi writes the keys with the project's name in front (ncdemo:target); messages name them without.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.capacity import Pool
from ncdemo.spec.explain import where
from ncdemo.spec.images import IMAGES
from ncdemo.spec.job import load_run
from ncdemo.spec.live_metrics import scraped_port, unscraped
from ncdemo.spec.load import read_text, validate
from ncdemo.spec.paths import PACKAGE
from ncdemo.spec.read import Place, read
from ncdemo.spec.show import Keys, bare, dotted, shown
from ncdemo.spec.stack import StackSpec, notes
from ncdemo.spec.stack_job import Job
from ncdemo.spec.train import TrainSpec

PROJECT = "ncdemo"
HF_TOKEN, ALERT_WEBHOOK = "hf_token", "alert_webhook"
"""A stack's secrets, no part of the spec: `pulumi config set --secret hf_token`. The second is the address that is told of alerts."""
SECRETS = (HF_TOKEN, ALERT_WEBHOOK)
FILE_NAME = re.compile(r"Pulumi\.([A-Za-z0-9_.-]+)\.ya?ml")
DEFAULT_NAMESPACE = "ncdemo"
"""Of a job without a pool."""
LOCAL_DATA = (".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class JobRun:
    """A job and what it comes to on this stack."""

    job: Job
    run: TrainSpec | BenchSpec
    pool: Pool | None
    gpus: int
    """Of each node."""
    deadline_s: int

    @property
    def namespace(self) -> str:
        """Of Kubernetes."""
        return self.pool.namespace if self.pool else DEFAULT_NAMESPACE

    @property
    def image(self) -> str:
        """Name of the image whose environment holds what the run needs."""
        if isinstance(self.run, BenchSpec):
            return next((engine for engine in self.run.engines if engine in IMAGES), "train")
        return "unsloth" if self.run.train.strategy == "unsloth" else "train"


@dataclass(frozen=True)
class Stack:
    """A checked stack."""

    name: str
    """In Azure's names: the spec's, else the Pulumi stack's."""
    spec: StackSpec
    jobs: tuple[JobRun, ...]
    has_token: bool = False
    """Whether the secret Hugging Face token is set."""
    has_webhook: bool = False
    """Whether the secret address that is told of alerts is set."""
    source: str = "spec"
    places: dict[Keys, Place] = field(default_factory=dict, repr=False, compare=False)

    @property
    def namespaces(self) -> list[str]:
        """The Kubernetes namespaces of the pools and jobs, in the order of the config."""
        pools = [pool.namespace for pool in self.spec.pools] if self.spec.target == "aks" else []
        return list(dict.fromkeys([*pools, *(run.namespace for run in self.jobs)]))

    @property
    def scraped_namespaces(self) -> tuple[str, ...]:
        """The Kubernetes namespaces of the jobs that Prometheus scrapes while they run."""
        return tuple(dict.fromkeys(run.namespace for run in self.jobs if scraped_port(self.spec, run.run)))

    @property
    def notes(self) -> list[str]:
        found = notes(self.spec)
        if self.has_webhook and (self.spec.target == "vm" or not self.spec.monitoring.in_cluster):
            found.append(f"{ALERT_WEBHOOK}: no effect without monitoring.in_cluster, whose Prometheus has the rules")
        live = [(at, unscraped(self.spec, run.run), run.run.telemetry.metrics_port) for at, run in enumerate(self.jobs)]
        return found + [f"jobs.{at}: telemetry.metrics_port = {port} is {why}" for at, why, port in live if why]

    def mistake(self, key: Keys, text: str) -> SpecError:
        """Return an error about a key that only shows once the stack is rendered."""
        return SpecError(f"{where(key, self.places, self.source)}: {dotted(key)}: {text}")


def load_stack(path: str | Path, overrides: Sequence[str] = ()) -> Stack:
    """Read a Pulumi.<stack>.yaml. Raise SpecError, a line per mistake, each with its place and remedy."""
    text, source = read_text(path)
    data, places = read(text, lambda line: f"{source}:{line}")
    named = FILE_NAME.fullmatch(Path(path).name)
    if data is not None and not isinstance(data, dict):
        raise SpecError(f"{source}: the top level is {shown(data)}; it must be a mapping with the key config")
    config = (data or {}).get("config") or {}
    if not isinstance(config, dict):
        raise SpecError(f"{where(('config',), places, source)}: config = {shown(config)}: it must be a mapping of ncdemo:<key> to values")
    below = {path[1:]: place for path, place in places.items() if path[:1] == ("config",) and len(path) > 1}
    return stack_of(named[1] if named else "stack", config, below, overrides, source)


def stack_of(stack: str, config: dict[str, Any], places: dict[Keys, Place], overrides: Sequence[str] = (), source: str = "config") -> Stack:
    """Make a stack of Pulumi's config: keys with or without `ncdemo:`; those of other namespaces are for their providers."""
    data: dict[str, Any] = {}
    own: dict[Keys, Place] = {}
    for key, value in config.items():
        namespace, _, name = key.rpartition(":")
        if namespace in ("", PROJECT):
            data[name] = value
            own |= {(name, *path[1:]): place for path, place in places.items() if path[:1] == (key,)}
    secrets = {"has_token": _has_secret(HF_TOKEN, data, own, source), "has_webhook": _has_secret(ALERT_WEBHOOK, data, own, source)}
    spec = validate(data, own, StackSpec, overrides, source)
    made = Stack(_azure_name(spec, stack, source), spec, (), **secrets, source=source, places=own)
    problems: list[str] = []
    jobs = []
    for at, job in enumerate(spec.jobs):
        try:
            jobs.append(_job_run(made, at, job, data))
        except SpecError as error:
            problems.append(str(error))
    if problems:
        raise SpecError("\n".join(problems))
    return replace(made, jobs=tuple(jobs))


def _has_secret(name: str, data: dict[str, Any], places: dict[Keys, Place], source: str) -> bool:
    """Take a secret out of the config; refuse one in plain text."""
    if name not in data:
        return False
    value = data.pop(name)
    if not (isinstance(value, dict) and value.keys() == {"secure"}):
        at, what = where((name,), places, source), "that token" if name == HF_TOKEN else "that address"
        raise SpecError(f"{at}: {name}: is in plain text; remove it, revoke {what}, and use: pulumi config set --secret {name}")
    return True


def _azure_name(spec: StackSpec, stack: str, source: str) -> str:
    name = spec.name or stack.rsplit("/", 1)[-1]
    if spec.name is None and not re.fullmatch(r"[a-z][a-z0-9-]{0,14}[a-z0-9]", name):
        raise SpecError(
            f"{source}: the stack's name {bare(name)} can't be part of Azure's names (2 to 16 lower-case letters, digits, "
            f"hyphens, beginning with a letter); set name"
        )
    return name


def _job_run(stack: Stack, at: int, job: Job, data: dict[str, Any]) -> JobRun:
    """Read a job's spec file, apply its changes, and check that they fit the job. Raise SpecError at the stack's own line."""
    spec, gpus = stack.spec, stack.spec.gpus_of(job)
    run = _load(stack, at, job, data)
    if job.server and not (isinstance(run, BenchSpec) and run.url == job.server.url):
        said = f"nothing loads it; the job needs a benchmark with mode: server, engines: [openai] and url: {job.server.url} (under set:)"
        raise stack.mistake(("jobs", at, "server"), said)
    if isinstance(run, BenchSpec):
        if job.nodes > 1:
            raise stack.mistake(("jobs", at, "nodes"), "a benchmark runs on one node; remove it")
    else:
        if run.train.processes not in (1, max(gpus, 1)):
            said = f"{job.config} says train.processes = {run.train.processes}, the job has {gpus} GPUs a node; leave it out: one per GPU is started"
            raise stack.mistake(("jobs", at, "config"), said)
        if run.data.name.endswith(LOCAL_DATA) and not run.data.name.startswith("/files/"):
            said = (
                f"data.name {bare(run.data.name)} is a file of this machine, not of the image; "
                "put it on the Azure Files share as /files/..., or name a hub data set"
            )
            raise stack.mistake(("jobs", at, "config"), said)
        run = run.model_copy(update={"train": run.train.model_copy(update={"processes": max(gpus, 1)})})
    if lacking := _no_resource(spec, run):
        why, remedy = lacking
        raise stack.mistake(("jobs", at, "config"), f"telemetry.azure_monitor = {run.telemetry.azure_monitor}, but {why}; {remedy}")
    deadline_h = job.deadline_h or spec.cost_guard.job_deadline_h
    return JobRun(job, run, spec.pool_of(job), gpus, max(1, round(deadline_h * 3600)))


def _no_resource(spec: StackSpec, run: TrainSpec | BenchSpec) -> tuple[str, str] | None:
    """Return why a job's figures would reach no Application Insights resource, and what to do; None where they do, or needn't."""
    auth = run.telemetry.azure_monitor
    if auth is None:
        return None
    if spec.target == "kubernetes":
        return "on a cluster that exists jobs have neither a resource to send to nor an Azure identity", "set it to null (under set:)"
    if not spec.monitoring.application_insights:
        return "the stack has no Application Insights resource to send to", "set monitoring.application_insights: true"
    if auth == "key":
        return "the stack's Application Insights resource takes identities alone", "set it to identity (under set:)"
    return None


def _load(stack: Stack, at: int, job: Job, data: dict[str, Any]) -> TrainSpec | BenchSpec:
    path = Path(job.config)
    if not path.is_absolute() and not path.exists() and (PACKAGE / path).exists():
        path = PACKAGE / path
    key: Keys = ("jobs", at, "set")
    overrides = {f"{name}={json.dumps(value)}": name for name, value in job.set.items()}
    try:
        return load_run(path, list(overrides))
    except SpecError as error:
        lines = []
        for line in str(error).split("\n"):
            override = next((one for one in overrides if line.startswith(f"--set {bare(one, limit=200)}: ")), None)
            if override:
                path_of = (*key, overrides[override])
                line = line.removeprefix(f"--set {bare(override, limit=200)}: ")
                lines.append(f"{where(path_of, stack.places, stack.source)}: jobs.{at}.set: {line}")
            else:
                lines.append(f"{where(('jobs', at, 'config'), stack.places, stack.source)}: jobs.{at}.config: {line}")
        raise SpecError("\n".join(lines)) from None
