"""A real headless Chromium for tests: opens a page, screenshots all of it, and returns what its console complained of.

    with Chromium() as chromium:
        visit = chromium.visit(page.as_uri(), png=Path("page.png"), width=480, script="document.title")
    assert visit.errors == []

Speaks the DevTools protocol over a pipe (JSON messages ended by NUL), so it needs no package and opens no port.
Starts and stops its own process group only.
"""

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from types import TracebackType
from typing import Any, Self

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)
PLACE = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
TIMEOUT_S = 60


def find() -> str | None:
    """Return the path of Chromium, or None; tests skip then."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Visit:
    """What a page did: console errors and warnings, failed or attempted requests, and the value of the script."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Every address asked for, the page's own first."""
    value: Any = None


class Chromium:
    def __enter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        # Above 3 and 4, where Chromium reads and writes, so that neither dup2 overwrites the other's source.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (child_in, child_out)]
        chromium = [find() or "chromium", *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-SEc", PLACE, *map(str, ends), *chromium],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in (child_in, child_out, *ends):
            os.close(end)
        self._buffer, self._id, self._events = b"", 0, []
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._call("Browser.close")
                self._process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            pass
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            os.close(self._in)
            os.close(self._out)
            self._profile.cleanup()

    def visit(self, url: str, *, png: Path | None = None, width: int = 1200, dark: bool = False, script: str = "null") -> Visit:
        """Open a page in a fresh tab of this width; write a PNG of its whole height; evaluate `script` in it."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", session)
        self._call("Emulation.setDeviceMetricsOverride", session, width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", session, features=[scheme])
        self._events.clear()
        self._call("Page.navigate", session, url=url)
        self._wait("Page.loadEventFired")
        value = self._call("Runtime.evaluate", session, expression=script, returnByValue=True, awaitPromise=True)
        if png:
            shot = self._call("Page.captureScreenshot", session, captureBeyondViewport=True)
            png.write_bytes(base64.b64decode(shot["data"]))
        visit = Visit(value=value.get("result", {}).get("value"))
        for event in self._events:
            _collect(event["method"], event.get("params", {}), visit)
        if "exceptionDetails" in value:
            visit.errors.append(f"script: {value['exceptionDetails'].get('text')}")
        self._call("Target.closeTarget", targetId=target)
        return visit

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer.get("result", {})
            self._events.append(answer)

    def _wait(self, method: str) -> None:
        while not any(event["method"] == method for event in self._events):
            self._events.append(self._read())

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select([self._in], [], [], max(0, deadline - time.monotonic()))
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError(f"chromium {'ended' if ready else f'did not answer in {TIMEOUT_S} s'}")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


def _collect(method: str, params: dict[str, Any], visit: Visit) -> None:
    if method == "Network.requestWillBeSent":
        visit.requests.append(params["request"]["url"])
    elif method == "Network.loadingFailed":
        visit.errors.append(f"request failed: {params.get('errorText')}")
    elif method == "Runtime.exceptionThrown":
        visit.errors.append(params["exceptionDetails"].get("text", "exception"))
    elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
        visit.errors.append(params["entry"]["text"])
    elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
        visit.errors.append(" ".join(str(argument.get("value", "")) for argument in params["args"]))
