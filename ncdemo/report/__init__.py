"""One self-contained HTML page about one or more runs, for people: no network, no script, all plots inline.

write_report([Path("runs/demo"), Path("runs/bench")], Path("report.html"))
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from ncdemo.spec import SpecError

__all__ = ["write_report"]


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write one page about all runs and return its path. Raise SpecError when a folder is no run directory or `out` can't be written.

    Whole or not at all: the page replaces `out` when it is complete. Equal run directories give equal bytes.
    """
    if not runs:
        raise SpecError("no run directory given; give at least one, e.g. runs/demo")
    if out.is_dir():
        raise SpecError(f"{out}: is a folder; give the file to write, e.g. {out / 'report.html'}")
    # Imported here alone: plots take a second and a half, and `ncdemo watch` needs none.
    from ncdemo.report.page import render
    from ncdemo.report.read import read_run

    html = render([read_run(Path(run)) for run in runs])
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(html, encoding="utf-8", errors="replace")
        partial.replace(out)
    except OSError as error:
        raise SpecError(f"{out}: cannot be written ({error.strerror}); give a path that you may write to") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return out
