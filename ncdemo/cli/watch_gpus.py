"""The GPUs of a watched run, on all nodes that are here: a line each, what is wrong with them at its end and coloured; in a log what is
wrong alone.

console.print(GpuTable(watched))
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ncdemo.report.show import number, percent, printable, size
from ncdemo.report.watched import Watched
from ncdemo.spec.follow import NodeState
from ncdemo.spec.gpu_errors import FAULTS, KILLED_XID, SLOWDOWNS

BAD, NOTICE = "red", "yellow"
ABSENT = "-"
NARROW = 72
MOST_ROWS = 16
"""GPUs of several nodes that have a row each; of more, each node has one."""
Gpu = dict[str, Any]


class GpuTable:
    """A table for rich, of a run on several nodes with the node; PCIe and NVLink have a column where one GPU tells them.

    On less than NARROW columns they have none, and what is wrong with a GPU has a line of its own below.
    """

    def __init__(self, run: Watched) -> None:
        self._run = run

    def __rich_console__(self, _console: Any, options: Any) -> Iterator[Any]:
        from rich.table import Table
        from rich.text import Text

        narrow = options.max_width < NARROW
        columns, wrong = _of_nodes(self._run) if _many(self._run) else _of_gpus(self._run, links=not narrow)
        said = {who: Text(", ").join(Text(words, style=colour) for words, colour in found) for who, found in wrong.items()}
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        if not narrow:
            table.add_column("")
        for cells in zip(*columns.values(), *([] if narrow else [said.values()]), strict=True):
            table.add_row(*cells)
        yield table
        if narrow:
            yield from (Text.assemble(f"{who}: ", words) for who, words in said.items() if words)


Columns = dict[str, list[str]]
Wrong = dict[str, list[tuple[str, str]]]
"""Of each row whose it is, and what is wrong there, in words with their colour."""


def _many(run: Watched) -> bool:
    return len(run.machines) > 1 and sum(len(node.sample.get("gpus") or ()) for node in run.machines.values()) > MOST_ROWS


def _of_gpus(run: Watched, *, links: bool) -> tuple[Columns, Wrong]:
    """Return a row for each GPU."""
    several = len(run.machines) > 1
    found = [(rank, node, gpu) for rank, node in run.machines.items() for gpu in node.sample.get("gpus") or ()]
    gpus = [gpu for _, _, gpu in found]
    columns = {
        **({"node": [str(rank) for rank, _, _ in found]} if several else {}),
        "GPU": [str(gpu.get("index")) for gpu in gpus],
        "busy\n%": [_rounded(gpu.get("utilization_pct")) for gpu in gpus],
        "memory\nGiB": [_gib(gpu.get("memory_used_bytes")) for gpu in gpus],
        "power\nW": [_rounded(gpu.get("power_w")) for gpu in gpus],
        "temp.\n°C": [_rounded(gpu.get("temperature_c")) for gpu in gpus],
        "PCIe GB/s\nout/in": [_rates(gpu.get("pcie_tx_bytes_per_s"), gpu.get("pcie_rx_bytes_per_s")) for gpu in gpus],
        "NVLink GB/s\nout/in": [_rates(*(node.nvlink_bytes_per_s(gpu.get("index")) or (None, None))) for _, node, gpu in found],
    }
    shown = {name: cells for name, cells in columns.items() if "out/in" not in name or (links and set(cells) != {ABSENT})}
    wrong = {f"node {rank} " * several + f"GPU {gpu.get('index')}": list(troubles(node, gpu)) for rank, node, gpu in found}
    return shown, wrong


def _of_nodes(run: Watched) -> tuple[Columns, Wrong]:
    """Return a row for all GPUs of each node, with what is red of any."""
    nodes = {rank: (node, gpus) for rank, node in run.machines.items() if (gpus := node.sample.get("gpus"))}
    columns = {
        "node": [str(rank) for rank in nodes],
        "GPUs": [str(len(gpus)) for _, gpus in nodes.values()],
        "busy\n%": [_range(gpus, "utilization_pct", _rounded) for _, gpus in nodes.values()],
        "memory\nGiB": [_range(gpus, "memory_used_bytes", _gib) for _, gpus in nodes.values()],
        "power\nW": [_range(gpus, "power_w", _rounded) for _, gpus in nodes.values()],
        "temp.\n°C": [_range(gpus, "temperature_c", _rounded) for _, gpus in nodes.values()],
    }
    wrong = {
        f"node {rank}": [
            (f"GPU {gpu.get('index')}: {words}", colour) for gpu in gpus for words, colour in troubles(node, gpu) if colour == BAD
        ]
        for rank, (node, gpus) in nodes.items()
    }
    return columns, wrong


def gpu_line(run: Watched) -> Iterator[str]:
    """Yield a GPU's load in short, and after it what nobody may miss; of very many GPUs a node's."""
    several, many = len(run.machines) > 1, _many(run)
    for rank, node in run.machines.items():
        gpus, where = node.sample.get("gpus") or (), f"node {rank} " * several
        if many and gpus:
            yield f"{where}GPUs {_range(gpus, 'utilization_pct', _rounded)} %"
        for gpu in gpus:
            busy, used = gpu.get("utilization_pct"), gpu.get("memory_used_bytes")
            load = [*([] if busy is None else [percent(busy / 100)]), *([] if used is None else [size(used)])]
            wrong = [words for words, colour in troubles(node, gpu) if colour == BAD]
            if wrong or not many:
                yield f"{where}GPU {gpu.get('index')} " + ", ".join([*([] if gpu.get("error") or many else load), *wrong])


def troubles(node: NodeState, gpu: Gpu) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a GPU, in words with their colour: lost, its errors so far, and why its clocks are held down now."""
    if gpu.get("error"):
        yield printable(gpu["error"]), BAD
    for (index, xid), count in sorted(node.errors.xids.items()):
        if index == gpu.get("index"):
            yield f"XID {xid}" + (f" x{count:,}" if count > 1 else ""), NOTICE if xid == KILLED_XID else BAD
    if errors := node.errors.ecc.get(gpu.get("index", -1)):
        yield f"{errors:,} uncorrected ECC", BAD
    reasons = gpu.get("throttle_reasons") or ()
    faults = dict.fromkeys(FAULTS[reason] for reason in reasons if reason in FAULTS)
    if faults:
        yield f"slowed by {' and '.join(faults)}", BAD
    if usual := [SLOWDOWNS[reason] for reason in reasons if reason in SLOWDOWNS and reason not in FAULTS]:
        yield f"at its {usual[0]}", NOTICE


def _rounded(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}"


def _gib(used: float | None) -> str:
    return ABSENT if used is None else number(used / 1024**3, 3)


def _range(gpus: Sequence[Gpu], name: str, show: Callable[[float | None], str]) -> str:
    """Print the lowest and the highest of a node's GPUs."""
    known = [gpu[name] for gpu in gpus if gpu.get(name) is not None]
    ends = dict.fromkeys(show(of(known)) for of in (min, max)) if known else {ABSENT: None}
    return "-".join(ends)


def _rates(sent: float | None, received: float | None) -> str:
    """Print two rates in GB/s, as links are sold."""
    both = ["?" if rate is None else number(rate / 1e9, 2) if rate >= 1e7 or rate == 0 else "<0.01" for rate in (sent, received)]
    return ABSENT if sent is received is None else "/".join(both)
