"""A process that behaves as an engine's server does, or as a broken one: fake_server.py PORT MODE. For the lifecycle's tests."""

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, MODE = int(sys.argv[1]), sys.argv[2]
resets = 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        bodies = {
            "/health": "",
            "/v1/models": '{"data": []}',
            "/metrics": f'# HELP x y\nfake:resets_total{{a="b c}}"}} {resets}.0\nother 3\n',
        }
        self._reply(404 if self.path not in bodies else 503 if MODE == "unready" else 200, bodies.get(self.path, ""))

    def do_POST(self) -> None:
        global resets
        resets += 1
        self._reply(200, '{"success": %s}' % ("true" if MODE != "held" and resets > 1 else "false"))

    def _reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing: the log is for what the tests look for."""


print(f"fake server {os.getpid()}", flush=True)
if MODE == "dies":
    sys.exit("CUDA out of memory, or so")
if MODE == "hangs":
    time.sleep(600)
if MODE == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if MODE in ("stubborn", "family"):
    # A worker in the same session, and one that left it, as engines' own launchers do.
    sleep = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, start_new_session=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
