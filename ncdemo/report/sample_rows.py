"""Lines of samples.jsonl as typed rows: quicker than dicts by half, as what no plot shows isn't kept. Absent is NaN, null None.

for batch in records(path, problems, row_lines): ...
"""

from math import nan
from typing import Any

import msgspec


class ProcessRow(msgspec.Struct, gc=False):
    pid: int
    memory_bytes: float | None = nan


class GpuRow(msgspec.Struct, gc=False):
    """Of GpuSample what a report shows."""

    index: int
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

    time_s: float | None = nan
    tick: int | None = None
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
    fields["gpus"] = (
        [_gpu(gpu) for gpu in gpus if isinstance(gpu, dict) and type(gpu.get("index")) is int] if isinstance(gpus, list) else []
    )
    return Row(**fields)


def _gpu(gpu: dict[str, Any]) -> GpuRow:
    fields: dict[str, Any] = _fitting(gpu, GpuRow)
    fields["error"] = str(gpu["error"]) if gpu.get("error") else None
    if isinstance(reasons := gpu.get("throttle_reasons"), list):
        fields["throttle_reasons"] = tuple(reason for reason in reasons if isinstance(reason, str))
    if isinstance(xids := gpu.get("xids"), list):
        fields["xids"] = [xid for xid in xids if type(xid) is int]
    if isinstance(processes := gpu.get("processes"), list):
        known = [process for process in processes if isinstance(process, dict) and type(process.get("pid")) is int]
        fields["processes"] = [ProcessRow(**_fitting(process, ProcessRow)) for process in known]
    return GpuRow(**fields)


def _fitting(record: dict[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the fields that are numbers."""
    return {name: value for name in struct.__struct_fields__ if type(value := record.get(name)) in (int, float)}
