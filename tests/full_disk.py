"""A small disk of its own that a test may fill and free again: a tmpfs, which says ENOSPC as any other does.

with small_disk(tmp_path / "disk", mib=4) as disk:
    disk.fill()
    disk.free()
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Disk:
    path: Path

    def fill(self) -> None:
        """Take all room that is left, to the last byte."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        self._ballast.unlink()

    def lock(self) -> None:
        """Let nothing be written, as a kernel does that finds a file system broken; no file may be open for writing."""
        self._remount("ro")

    def unlock(self) -> None:
        self._remount("rw")

    def _remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True)

    @property
    def _ballast(self) -> Path:
        return self.path / "somebody-elses"


@contextmanager
def small_disk(path: Path, mib: int) -> Iterator[Disk]:
    """Mount it; skip the test where this machine doesn't let us."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a tmpfs to fill")
    path.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(path)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here to be filled: {mounted.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
