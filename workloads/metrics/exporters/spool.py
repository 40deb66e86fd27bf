"""What a gateway could not take, on disk until it can: of each group the newest, so nothing is sent that was overtaken.

Spool(Path("runs/.pushgateway"), gateway).deliver("PUT", key, text, within_s=10)
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from workloads.metrics.exporters.gateway import Gateway, Method, Refused, Unreachable, group_path

LOG = logging.getLogger(__name__)


class Spool:
    """One folder; entries for another gateway stay until somebody sends to that one."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self.folder, self._gateway = folder, gateway

    def deliver(self, method: Method, key: Mapping[str, str], body: str = "", within_s: float = 10.0) -> bool:
        """Send a group, or keep it for later and return False. Raise Refused, with nothing kept, when it is never taken."""
        with self._only(self._file(key)):
            try:
                self._gateway.send(method, key, body, within_s)
            except Unreachable as error:
                self._keep(method, key, body)
                LOG.info("%s; kept in %s", error, self.folder)
                return False
            self._file(key).unlink(missing_ok=True)
            return True

    def waiting(self) -> list[Path]:
        """Return the entries for this gateway, oldest first."""
        found = self.folder.glob(f"{_hash(self._gateway.shown)}-*.json") if self.folder.is_dir() else ()
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    def keys(self) -> list[dict[str, str]]:
        """Return the groups that wait."""
        return [entry["key"] for path in self.waiting() if (entry := _read(path))]

    def send(self, within_s: float = 10.0) -> tuple[int, int]:
        """Send what waits; return how many groups went and how many stay. The first that can't go ends it."""
        sent = 0
        for path in self.waiting():
            with self._only(path):
                entry = _read(path)
                if entry is None:
                    continue
                try:
                    self._gateway.send(entry["method"], entry["key"], entry["body"], within_s)
                except Unreachable:
                    break
                except Refused as error:
                    LOG.warning("%s; dropped", error)
                path.unlink(missing_ok=True)
                sent += 1
        return sent, len(self.waiting())

    def _keep(self, method: Method, key: Mapping[str, str], body: str) -> None:
        path = self._file(key)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"method": method, "key": dict(key), "body": body}), encoding="utf-8")
        os.replace(part, path)

    def _file(self, key: Mapping[str, str]) -> Path:
        # The address only as a hash: it may hold a password.
        return self.folder / f"{_hash(self._gateway.shown)}-{_hash(group_path(key))}.json"

    @contextmanager
    def _only(self, entry: Path) -> Iterator[None]:
        """Let one process at a time send a group, or an old entry could overtake a newer push. Sixteen locks serve all groups."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"lock-{entry.stem[-1]}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _read(path: Path) -> dict[str, Any] | None:
    """Return an entry, None when another process has just sent it."""
    with suppress(OSError, ValueError):
        entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return entry
    return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
