"""One subject of a run as a side of a comparison: its cells, its searches, its answers, and the machine it ran on.

side = read_side(Path("runs/a"), "vllm")
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ncdemo.report.lines import records
from ncdemo.report.measured import Measured, read_measured
from ncdemo.spec.agreement import AGREEMENT_TOKENS
from ncdemo.spec.base import SpecError
from ncdemo.spec.result_bench import Cell, SearchResult, load_of, subject_of
from ncdemo.spec.server_args import ServerArg, split

Start = tuple[list[int] | None, list[str] | None]
"""An answer's first AGREEMENT_TOKENS token ids, where the engine told them, and as many words of its text."""


@dataclass(frozen=True)
class Side:
    """One subject in one run."""

    run: str
    subject: str
    cells: tuple[Cell, ...]
    searches: tuple[SearchResult, ...] = ()
    distinct: int | None = None
    """Prompts of a cell that differ: a short file is repeated. None: not known."""
    about: dict[str, str] = field(default_factory=dict)
    """Versions and hardware that may differ between two runs, in words."""
    whole: bool = True
    """False: its run goes on, or was stopped or killed; these are the cells that it finished."""
    finished: int = 0
    """Cells of its whole run."""
    planned: int | None = None
    """Cells that its run was to have; None where only the run knows, as with a search."""
    folder: Path | None = None
    """Where its requests.jsonl is."""
    server_args: tuple[ServerArg, ...] = ()
    """What was appended to its server's command."""
    url: str | None = None
    """Of an endpoint of others."""

    def answers(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], dict[tuple[int, int], Start]]:
        """Return how its good answers begin: (model, load) -> (repeat, index) -> start. Empty without requests on record."""
        found: dict[tuple[str, str], dict[tuple[int, int], Start]] = {}
        for request in self._requests():
            key = str(request.get("model")), load_of(request.get("setting"), request.get("concurrency"))
            if key in wanted and request.get("ok") and subject_of(str(request.get("engine")), request.get("variant")) == self.subject:
                ids, text = request.get("token_ids"), request.get("text")
                words = text.split(maxsplit=AGREEMENT_TOKENS)[:AGREEMENT_TOKENS] if isinstance(text, str) else None
                start = ids[:AGREEMENT_TOKENS] if ids else None, words
                found.setdefault(key, {})[request.get("repeat", -1), request.get("index", -1)] = start
        return found

    def _requests(self) -> Iterator[dict[str, Any]]:
        if self.folder is not None:
            for batch in records(self.folder / "requests.jsonl", []):
                yield from batch


def read_side(folder: Path, subject: str | None) -> Side:
    """Return a subject of a run. Raise SpecError where there is none, or several and none was named."""
    measured = read_measured(folder)
    record, bench = measured.record, measured.record.bench
    subjects = list(dict.fromkeys(c.subject for c in measured.cells))
    if subject is None and len(subjects) > 1:
        raise SpecError(f"{folder}: holds {', '.join(subjects)}; say which as RUN:SUBJECT, e.g. {folder}:{subjects[0]}")
    chosen = subject or subjects[0]
    if chosen not in subjects:
        raise SpecError(f"{folder}:{chosen}: no such subject; give one of: {', '.join(subjects)}")
    cells = tuple(c for c in measured.cells if c.subject == chosen)
    return Side(
        record.run_id, chosen, cells, tuple(s for s in bench.searches if s.subject == chosen) if bench else (),
        distinct=bench.prompt_rows.used if bench and bench.prompt_rows else None,
        about=_machine(folder) | {"engine version": measured.versions.get(cells[0].engine, "not known")}, folder=folder,
        whole=measured.whole, finished=len(measured.cells), planned=measured.planned, server_args=_server_args(measured, cells),
        url=str(measured.spec.get("url") or "").rstrip("/").removesuffix("/v1") or None if cells[0].engine == "openai" else None,
    )  # fmt: skip


def _server_args(measured: Measured, cells: Sequence[Cell]) -> tuple[ServerArg, ...]:
    """Return what the server was given; of an older version what its spec says, without what it changes."""
    for cell in cells:
        if cell.server_args is not None:
            return tuple(cell.server_args)
    words = (measured.spec.get("server_args") or {}).get(cells[0].engine) or ()
    return tuple(ServerArg(name=name, value=value) for name, value in split(map(str, words)))


def _machine(folder: Path) -> dict[str, str]:
    """Return the hardware and what drives it, from environment.json; what it doesn't know is left out."""
    try:
        known = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        gpus = [str(gpu.get("name")) for gpu in known.get("gpus") or ()]
        said = {
            "GPUs": ", ".join(gpus),
            "GPU driver": known.get("gpu_driver"),
            "its CUDA": known.get("gpu_driver_cuda"),
            "CPU": (known.get("cpu") or {}).get("model"),
            "torch": (known.get("packages") or {}).get("torch"),
        }
    except (OSError, ValueError, AttributeError):
        return {}
    return {name: str(value) for name, value in said.items() if value}
