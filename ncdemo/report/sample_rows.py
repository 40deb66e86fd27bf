"""Lines of samples.jsonl as typed rows: quicker than dicts by half, as what no plot shows isn't kept. Absent is NaN, null None.

for batch in records(path, problems, row_lines): ...
"""

from math import nan
from sys import float_info
from typing import Annotated, Any

import msgspec

MOST = 1 << 53
"""Up to this every whole number has a float of its own."""
Whole = Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]


class ProcessRow(msgspec.Struct, gc=False):
    pid: Whole
    memory_bytes: float | None = nan


class GpuRow(msgspec.Struct, gc=False):
    """Of GpuSample what a report shows."""

    index: Whole
    error: str | None = None
    utilization_pct: float | None = nan
    memory_used_bytes: float | None = nan
    power_w: float | None = nan
    temperature_c: float | None = nan
    throttle_reasons: tuple[str, ...] | None = None
    xids: list[int] | None = None
    pcie_tx_bytes_per_s: float | None = nan
    pcie_rx_bytes_per_s: float | None = nan
    nvlink_tx_bytes: float | None = nan
    nvlink_rx_bytes: float | None = nan
    ecc_corrected: float | None = nan
    ecc_uncorrected: float | None = nan
    processes: list[ProcessRow] | None = None


class Row(msgspec.Struct, gc=False):
    """Of Sample the same."""

    tick: float | None = nan
    time_s: float | None = nan
    cpu_pct: float | None = nan
    process_cpu_pct: float | None = nan
    process_rss_bytes: float | None = nan
    memory_used_bytes: float | None = nan
    disk_read_bytes_per_s: float | None = nan
    disk_write_bytes_per_s: float | None = nan
    net_recv_bytes_per_s: float | None = nan
    net_sent_bytes_per_s: float | None = nan
    gpus: list[GpuRow] = []


row_lines = msgspec.json.Decoder(Row).decode_lines
"""Decode lines of samples. Raise MsgspecError when one doesn't fit; `lenient` takes it then, and leaves out what doesn't."""


def lenient(sample: dict[str, Any]) -> Row:
    fields: dict[str, Any] = _fitting(sample, Row)
    gpus = sample.get("gpus")
    fields["gpus"] = [_gpu(gpu) for gpu in gpus if isinstance(gpu, dict) and _is_whole(gpu.get("index"))] if isinstance(gpus, list) else []
    return Row(**fields)


def _gpu(gpu: dict[str, Any]) -> GpuRow:
    fields: dict[str, Any] = _fitting(gpu, GpuRow)
    reasons, xids, processes = (gpu.get(name) for name in ("throttle_reasons", "xids", "processes"))
    fields["error"] = str(gpu["error"]) if gpu.get("error") else None
    fields["throttle_reasons"] = tuple(reason for reason in reasons if isinstance(reason, str)) if isinstance(reasons, list) else None
    fields["xids"] = [xid for xid in xids if type(xid) is int] if isinstance(xids, list) else None
    known = processes if isinstance(processes, list) else []
    known = [process for process in known if isinstance(process, dict) and _is_whole(process.get("pid"))]
    fields["processes"] = [ProcessRow(**_fitting(process, ProcessRow)) for process in known]
    return GpuRow(**fields)


def _is_whole(value: Any) -> bool:
    return type(value) is int and -MOST <= value <= MOST


def _fitting(record: dict[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the fields that are numbers, as far as a float holds them."""
    found = ((name, record.get(name)) for name in struct.__struct_fields__)
    return {
        name: value for name, value in found if isinstance(value, int | float) and type(value) is not bool and abs(value) <= float_info.max
    }
