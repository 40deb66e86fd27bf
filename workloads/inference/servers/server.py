"""One engine's server as a context manager: started in its own session, healthy or a clear error, stopped to the last process.

with Server(serve("vllm", path, settings, free_port()), folder) as server:
    server.reset_prefix_cache()
    before = server.scrape()
"""

import http.client
import json
import logging
import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from workloads.inference.frameworks.base import Serve
from workloads.inference.servers.orphans import TOKEN, drop_record, end, end_orphans, members, write_record
from workloads.inference.servers.ports import check_port
from workloads.inference.servers.prometheus import figures, parse

log = logging.getLogger("ncdemo.server")
TAIL_LINES = 20
REFUSED = (401, 403)


class ServerError(Exception):
    """The server died, hung or refused: what happened and the end of its log."""


class ServerHung(ServerError):
    """The server's process is there and gives no answer."""


class Server:
    def __init__(
        self,
        how: Serve,
        folder: Path,
        *,
        start_timeout_s: float = 600.0,
        stop_timeout_s: float = 15.0,
        warm_up: Callable[["Server"], object] | None = None,
    ) -> None:
        """`folder` gets server.log and the engine's own files; `warm_up` is called once the server is healthy."""
        self.how, self.folder = how, folder.resolve()
        self.argv = [self._filled(word) for word in how.argv]
        self.env = {name: self._filled(value) for name, value in how.env}
        """Beside this process's own environment."""
        self.start_timeout_s, self.stop_timeout_s = start_timeout_s, stop_timeout_s
        self.start_time_s: float | None = None
        """From the command's start to the first healthy answer; None for a server that someone else runs."""
        self._warm_up, self._token = warm_up, uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        try:
            if self.how.argv:
                self._start()
            self._wait_for_health()
            if self._process:
                write_record(self._token, self._process.pid)
            if self._warm_up:
                self._warm_up(self)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check_alive(self) -> None:
        """Raise ServerError when the server's process has ended."""
        if self._process and self._process.poll() is not None:
            raise ServerError(f"the server ended (exit {self._process.returncode}); {self._tail()}")

    def check_healthy(self, limit_s: float = 30.0) -> None:
        """Raise ServerError when a server of ours has ended or isn't well, ServerHung when it gives no answer in limit_s.

        For after a failure: a server that is ending may not have ended yet, and a launcher may outlive its engine.
        """
        deadline = time.monotonic() + limit_s
        while self._process:
            self.check_alive()
            try:
                status, _ = self._ask("GET", self.how.health, max(0.1, deadline - time.monotonic()))
                problem = ServerError(f"the server isn't healthy any more ({self.how.health} answers {status}); {self._tail()}")
                if status == 200:
                    return
            except ServerError as error:
                problem = error
            if time.monotonic() > deadline:
                self.check_alive()
                raise problem
            time.sleep(0.1)

    def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache. Return False when it may hold something and nothing can be done about it."""
        if self.how.reset is None:
            return self.how.prefix_cache == "off"
        deadline = time.monotonic() + 10
        while True:  # a request that has just ended may still hold blocks
            status, body = self._ask("POST", self.how.reset, 30)
            if status == 200 and '"success":false' not in body.replace(" ", ""):
                return True
            if time.monotonic() > deadline:
                raise ServerError(f"POST {self.how.reset}: {status} {body[:200]}; the prefix cache was not emptied")
            time.sleep(0.2)

    def figures(self, timeout_s: float) -> dict[str, float | None]:
        """Return what the engine counts, under the names of EngineSample; empty when it counts nothing that we know."""
        return figures(self.scrape(timeout_s) or {}, self.how.figures)

    def version(self, timeout_s: float = 5.0) -> str | None:
        """Return what the server says at /version; None when it says nothing there."""
        try:
            status, body = self._ask("GET", "/version", timeout_s)
            said = json.loads(body).get("version") if status == 200 else None
        except (ServerError, ValueError, AttributeError):
            return None
        return str(said) if said else None

    def scrape(self, timeout_s: float = 30) -> dict[str, float] | None:
        """Return the engine's own counters; None when it has none."""
        if self.how.metrics is None:
            return None
        status, body = self._ask("GET", self.how.metrics, timeout_s)
        if status != 200:
            raise ServerError(f"GET {self.how.metrics}: {status} {body[:200]}; the server's metrics can't be read")
        return parse(body, self.how.metrics_prefix)

    def stop(self) -> None:
        """End every process of the server: SIGTERM, then SIGKILL."""
        if self._process is None:
            drop_record(self._token)
            return
        # Until it is waited for, the leader's pid stays its own, and so does the session's number.
        leader = self._process.pid
        end(lambda: members(self._token, leader), self.stop_timeout_s)
        self._process.wait()
        self._process = None
        drop_record(self._token)

    def _start(self) -> None:
        for pid in end_orphans():
            log.warning("ended process %d, left by a benchmark that was killed", pid)
        check_port(urlsplit(self.how.url).port or 80)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.how.files:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        env = {**os.environ, **self.env, TOKEN: self._token}
        # The record is there before the process: a kill between the two leaves nothing unknown.
        write_record(self._token)
        with (self.folder / "server.log").open("wb") as out:
            self._process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True
            )
        write_record(self._token, self._process.pid)

    def _wait_for_health(self) -> None:
        start = time.monotonic()
        problem = "no answer"
        while (waited := time.monotonic() - start) < self.start_timeout_s:
            self.check_alive()
            try:
                status, _ = self._ask("GET", self.how.health, min(5.0, self.start_timeout_s))
            except ServerError as error:
                problem = str(error)
            else:
                if status == 200:
                    self.start_time_s = waited if self._process else None
                    return
                if status in REFUSED and not self._process:
                    raise ServerError(
                        f"GET {self.how.url}{self.how.health}: answers {status}; it wants a key: export it as OPENAI_API_KEY"
                        if self.how.api_key_env is None
                        else f"GET {self.how.url}{self.how.health}: answers {status} to the key in {self.how.api_key_env}; export the right one"
                    )
                problem = f"answers {status}"
            time.sleep(0.1)
        raise ServerError(f"the server was not healthy after {self.start_timeout_s:g} s ({problem}); {self._tail()}")

    def _ask(self, method: str, path: str, timeout_s: float) -> tuple[int, str]:
        parts = urlsplit(self.how.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        try:
            key = os.environ.get(self.how.api_key_env or "")
            connection.request(method, parts.path + path, headers={"Authorization": f"Bearer {key}"} if key else {})
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except TimeoutError:
            raise ServerHung(f"{method} {self.how.url}{path}: no answer in {timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"{method} {self.how.url}{path}: {type(error).__name__}: {error}") from None
        finally:
            connection.close()

    def _filled(self, text: str) -> str:
        return text.replace("{folder}", str(self.folder))

    def _tail(self) -> str:
        path = self.folder / "server.log"
        if not self.how.argv or not path.is_file():
            return "it is not ours, so its log is elsewhere"
        lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return f"the end of {path}:\n" + "\n".join(f"  {line}" for line in lines)
