"""Rows of samples to tables of numbers, many samples at once: a call of numpy costs as much as a sample.

for table in tables(records(path, problems, row_lines), Reasons()): table.host["cpu_pct"]
"""

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import nan
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import astuple

from ncdemo.report.sample_rows import GpuRow, ProcessRow, Row, lenient
from ncdemo.spec.gpu_errors import FAULTS

ROWS = 1 << 15
"""Of samples and GPUs in a table, and up to as many more as are read at once."""
HOST, GPU, PROCESS = Row.__struct_fields__, GpuRow.__struct_fields__, ProcessRow.__struct_fields__
GPUS = HOST.index("gpus")
ERROR, REASONS, XIDS, PROCESSES = (GPU.index(name) for name in ("error", "throttle_reasons", "xids", "processes"))


class Reasons(dict[tuple[str, ...] | None, int]):
    """Each set of throttle reasons that comes up -> its number, from 0, which is: not measured."""

    def __init__(self) -> None:
        super().__init__({None: 0})

    def __missing__(self, reasons: tuple[str, ...]) -> int:
        self[reasons] = len(self)
        return self[reasons]

    def slowed_pct(self) -> np.ndarray:
        """Return by number: 100 where a fault is among the reasons, else 0; NaN where not measured."""
        return np.array([nan if reasons is None else 100.0 * any(r in FAULTS for r in reasons) for reasons in self])


@dataclass
class Table:
    """Numbers by name and row; what isn't known is NaN."""

    host: dict[str, np.ndarray]
    """The fields of Row."""
    gpus: dict[str, np.ndarray]
    """Those of GpuRow that are numbers, throttle_reasons as numbers of Reasons, and `sample`, a row of host."""
    processes: dict[str, np.ndarray]
    """Those of ProcessRow, and `gpu`, a row of gpus."""
    said: list[tuple[int, str | None, list[int]]]
    """A row of gpus with an error or XIDs, and which."""


@dataclass
class _Open:
    """A table that grows: rows of numbers as packed, and how many."""

    samples: int = 0
    gpus: int = 0
    host_rows: list[bytes] = field(default_factory=list)
    gpu_rows: list[bytes] = field(default_factory=list)
    process_rows: list[bytes] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    said: list[tuple[int, str | None, list[int]]] = field(default_factory=list)

    def add(self, rows: list[Row], reasons: Reasons) -> None:
        flat = _values(rows)
        gpus = list(chain.from_iterable(held := flat[GPUS :: len(HOST)]))
        flat[GPUS :: len(HOST)] = map(len, held)
        self.host_rows.append(packed(flat))
        self.samples += len(rows)
        if gpus:
            self._add_gpus(gpus, reasons)

    def _add_gpus(self, rows: list[GpuRow], reasons: Reasons) -> None:
        flat = _values(rows)
        errors, xids, processes = (flat[at :: len(GPU)] for at in (ERROR, XIDS, PROCESSES))
        flat[ERROR :: len(GPU)] = flat[XIDS :: len(GPU)] = flat[PROCESSES :: len(GPU)] = [0.0] * len(rows)
        flat[REASONS :: len(GPU)] = map(reasons.__getitem__, flat[REASONS :: len(GPU)])
        self.gpu_rows.append(packed(flat))
        if any(errors) or any(xids):
            both = enumerate(zip(errors, xids, strict=True), self.gpus)
            self.said += [(i, said, which or []) for i, (said, which) in both if said or which]
        if ran := list(chain.from_iterable(filter(None, processes))):
            self.process_rows.append(packed(_values(ran)))
            self.owners += [i for i, some in enumerate(processes, self.gpus) if some for _ in some]
        self.gpus += len(rows)

    def close(self) -> Table:
        host, gpus = _columns(self.host_rows, HOST), _columns(self.gpu_rows, GPU)
        gpus["sample"] = np.repeat(np.arange(self.samples), host["gpus"].astype(int))
        return Table(host, gpus, _columns(self.process_rows, PROCESS) | {"gpu": np.array(self.owners, dtype=int)}, self.said)


def tables(batches: Iterable[list[Any]], reasons: Reasons) -> Iterator[Table]:
    """Yield every sample, Row or dict, in a table."""
    table = _Open()
    for batch in batches:
        if batch:
            table.add(batch if type(batch[0]) is Row else [lenient(sample) for sample in batch], reasons)
        if table.samples + table.gpus > ROWS:
            yield table.close()
            table = _Open()
    if table.samples:
        yield table.close()


def packed(values: list[Any]) -> bytes:
    """Return numbers as float64, in a third of the time that numpy takes; None is NaN."""
    pack = struct.Struct(f"{len(values)}d").pack
    try:
        return pack(*values)
    except struct.error:
        return pack(*[nan if value is None else value for value in values])


def _values(rows: Sequence[Struct]) -> list[Any]:
    """Return the fields of all rows, one after the other."""
    values: list[Any] = []
    deque(map(values.extend, map(astuple, rows)), maxlen=0)  # of a chain of the tuples each value would be asked for: twice as long
    return values


def _columns(rows: list[bytes], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    table = np.frombuffer(b"".join(rows)).reshape(-1, len(names))
    return {name: table[:, i].copy() for i, name in enumerate(names)}
