"""The GPUs of a watched run: a line each, what is wrong with them at its end and coloured; in a log what is wrong alone.

console.print(GpuTable(watched))
"""

from collections.abc import Iterator
from typing import Any

from ncdemo.report.show import number, percent, printable, size
from ncdemo.report.watched import Watched
from ncdemo.spec.gpu_errors import FAULTS, KILLED_XID, SLOWDOWNS

BAD, NOTICE = "red", "yellow"
ABSENT = "-"
NARROW = 72
Gpu = dict[str, Any]


class GpuTable:
    """A table for rich; PCIe and NVLink have a column where one GPU tells them.

    On less than NARROW columns they have none, and what is wrong with a GPU has a line of its own below.
    """

    def __init__(self, run: Watched) -> None:
        self._run = run

    def __rich_console__(self, _console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        gpus = self._run.sample.get("gpus") or ()
        wrong = [Text(", ").join(Text(words, style=colour) for words, colour in troubles(self._run, gpu)) for gpu in gpus]
        narrow = options.max_width < NARROW
        yield _table(self._run, links=not narrow, beside=None if narrow else wrong)
        if narrow:
            yield from (Text.assemble(f"GPU {gpu.get('index')}: ", said) for gpu, said in zip(gpus, wrong, strict=True) if said)


def _table(run: Watched, *, links: bool, beside: list[Any] | None) -> Any:
    from rich.table import Table

    gpus = run.sample.get("gpus") or ()
    columns = {
        "GPU": [str(gpu.get("index")) for gpu in gpus],
        "busy\n%": [_rounded(gpu.get("utilization_pct")) for gpu in gpus],
        "memory\nGiB": [ABSENT if (used := gpu.get("memory_used_bytes")) is None else number(used / 1024**3, 3) for gpu in gpus],
        "power\nW": [_rounded(gpu.get("power_w")) for gpu in gpus],
        "temp.\n°C": [_rounded(gpu.get("temperature_c")) for gpu in gpus],
        "PCIe GB/s\nout/in": [_rates(gpu.get("pcie_tx_bytes_per_s"), gpu.get("pcie_rx_bytes_per_s")) for gpu in gpus],
        "NVLink GB/s\nout/in": [_rates(*(run.nvlink_bytes_per_s(gpu.get("index")) or (None, None))) for gpu in gpus],
    }
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    shown = {name: cells for name, cells in columns.items() if "out/in" not in name or (links and set(cells) != {ABSENT})}
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    if beside:
        table.add_column("")
    for cells in zip(*shown.values(), *([beside] if beside else []), strict=True):
        table.add_row(*cells)
    return table


def gpu_line(run: Watched) -> Iterator[str]:
    """Yield a GPU's load in short, and after it what nobody may miss."""
    for gpu in run.sample.get("gpus") or ():
        busy, used = gpu.get("utilization_pct"), gpu.get("memory_used_bytes")
        load = [*([] if busy is None else [percent(busy / 100)]), *([] if used is None else [size(used)])]
        wrong = [words for words, colour in troubles(run, gpu) if colour == BAD]
        yield f"GPU {gpu.get('index')} " + ", ".join([*([] if gpu.get("error") else load), *wrong])


def troubles(run: Watched, gpu: Gpu) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a GPU, in words with their colour: lost, its errors so far, and why its clocks are held down now."""
    if gpu.get("error"):
        yield printable(gpu["error"]), BAD
    for (index, xid), count in sorted(run.errors.xids.items()):
        if index == gpu.get("index"):
            yield f"XID {xid}" + (f" x{count:,}" if count > 1 else ""), NOTICE if xid == KILLED_XID else BAD
    if errors := run.errors.ecc.get(gpu.get("index", -1)):
        yield f"{errors:,} uncorrected ECC", BAD
    reasons = gpu.get("throttle_reasons") or ()
    faults = dict.fromkeys(FAULTS[reason] for reason in reasons if reason in FAULTS)
    if faults:
        yield f"slowed by {' and '.join(faults)}", BAD
    if usual := [SLOWDOWNS[reason] for reason in reasons if reason in SLOWDOWNS and reason not in FAULTS]:
        yield f"at its {usual[0]}", NOTICE


def _rounded(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}"


def _rates(sent: float | None, received: float | None) -> str:
    """Print two rates in GB/s, as links are sold."""
    both = ["?" if rate is None else number(rate / 1e9, 2) if rate >= 1e7 or rate == 0 else "<0.01" for rate in (sent, received)]
    return ABSENT if sent is received is None else "/".join(both)
