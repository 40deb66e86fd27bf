"""What a run did cost: its duration times its nodes' price.

run_cost(Path("runs/tune"), Where(vm_size="Standard_NC40ads_H100_v5"), Table())

A node is also paid from its start until its pool scales down, about ten minutes after the last job: that isn't the run's. Nor is
what a training run that was stopped had to do again: its clock goes on from the checkpoint's.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ncdemo.infra.cost import Prices, Range
from ncdemo.spec.base import SpecError
from ncdemo.spec.result import RunRecord
from ncdemo.spec.sizes import SIZES, Size, find

DEFAULT_REGION = "eastus"


@dataclass(frozen=True)
class Where:
    """What a run was on, as far as someone said; None: what the run's machine said, else its spec."""

    vm_size: str | None = None
    region: str | None = None
    nodes: int | None = None


@dataclass(frozen=True)
class RunCost:
    run: str
    status: str
    duration_s: float
    whole: bool
    """False: the run has no end on record, and this is its last sign of life; it cost at least so much."""
    vm_size: str
    region: str
    nodes: int
    usd: float | None
    """Pay as you go."""
    spot_usd: Range | None
    usd_per_mtok: float | None
    """Pay as you go, per million tokens trained or answered; None where the run counted none."""
    prices: str


def is_run(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in ("result.json", "spec.yaml"))


def machine(path: Path, where: Where) -> tuple[Size, str]:
    """Return the size and region of a run's nodes. Raise SpecError where nobody says it."""
    ran_on, priced = _environment(path).get("azure") or {}, _spec(path).get("prices") or {}
    name = where.vm_size or ran_on.get("vm_size") or priced.get("vm_size")
    if name is None:
        raise SpecError(f"{path}: doesn't record its VM size; add --size, e.g. --size {next(iter(SIZES))}")
    size = find(name)
    if size is None:
        said = f"--size {name}" if where.vm_size else f"{path}: its VM size {name}"
        hint = "" if where.vm_size else "; give one with --size"
        raise SpecError(f"{said}: isn't a VM size in ncdemo's catalogue{hint}; known: {', '.join(SIZES)}")
    return size, where.region or ran_on.get("region") or priced.get("region") or DEFAULT_REGION


def run_cost(path: Path, where: Where, prices: Prices) -> RunCost:
    record = _record(path)
    size, region = machine(path, where)
    last_s = record.duration_s if record.duration_s is not None else _last_sign_s(path)
    if last_s is None:
        raise SpecError(
            f"{path}: {record.status}, with no duration and no sample on record, so there is nothing to count; give a run that went on for a while"
        )
    nodes = where.nodes or _nodes(path, record, size)
    hours = last_s / 3600 * nodes
    each, spot, tokens = prices.price(size, region), prices.spot(size, region), _tokens(record)
    usd = None if each is None else each * hours
    return RunCost(
        record.run_id,
        record.status,
        last_s,
        record.duration_s is not None,
        size.name,
        region,
        nodes,
        usd,
        spot and (spot[0] * hours, spot[1] * hours),
        usd / tokens * 1e6 if usd is not None and tokens else None,
        prices.source,
    )


def _record(path: Path) -> RunRecord:
    try:
        return RunRecord.model_validate_json((path / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else f"can't be read ({type(error).__name__})"
        raise SpecError(f"{path / 'result.json'}: {why}; give a run directory that ncdemo train or ncdemo bench wrote") from None


def _spec(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load((path / "spec.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return data if isinstance(data, dict) else {}


def _environment(path: Path) -> dict[str, Any]:
    try:
        data = json.loads((path / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _last_sign_s(path: Path) -> float | None:
    """Return when the last sample was taken; the last line of a killed run may be torn."""
    last = None
    try:
        with (path / "samples.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    last = float(json.loads(line)["time_s"])
                except (ValueError, KeyError, TypeError):
                    continue
    except OSError:
        return None
    return last


def _nodes(path: Path, record: RunRecord, size: Size) -> int:
    """Return what the launcher told the ranks, else ranks / those of a node, else as many as have the GPUs; a benchmark takes one."""
    try:
        told = json.loads((path / "environment.json").read_text(encoding="utf-8"))["env"]
        return max(1, int(told["WORLD_SIZE"]) // int(told["LOCAL_WORLD_SIZE"]))
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        pass  # one rank alone is told nothing
    ranks = record.train.world_size if record.train else 1
    each = (_spec(path).get("train") or {}).get("processes") or max(size.gpus, 1)
    return -(-ranks // each)


def _tokens(record: RunRecord) -> int:
    if record.train:
        return record.train.tokens
    return sum(cell.output_tokens or 0 for cell in record.bench.cells) if record.bench else 0
