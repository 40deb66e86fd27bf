"""Azure Resource Manager and a machine's identity endpoint on loopback: VMs, run commands, and the operations that take time.

with ArmApi() as api:
    api.vm("vm-h100-0", {"tune-0123456789-0": {"executionState": "Succeeded"}})
    os.environ |= api.env()
"""

import datetime
import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

TOKEN = "an-access-token"


class ArmApi:
    def __init__(self) -> None:
        self.powers: dict[str, str] = {}
        self.commands: dict[str, dict[str, Any]] = {}
        self.scripts: list[tuple[str, str]] = []
        self.says = "ncdemo: ok"
        """What a script ends with."""
        self.refuse: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        self.subscriptions = ["0000-sub"]
        self.things: dict[str, Any] = {}
        """Path below a subscription -> what a GET answers, for all that isn't a VM."""
        self._operations: dict[str, list[dict[str, Any]]] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _answer(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
                headers: dict[str, str] = {}
                if url.path == "/token":
                    status, answer = 200, {"access_token": TOKEN, "expires_on": "9999999999", "resource": "x", "token_type": "Bearer"}
                elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    status, answer = 401, {"error": {"message": "no token"}}
                elif refused := api.refuse(self.command, url.path):
                    status, answer = refused[0], {"error": {"message": refused[1]}}
                else:
                    status, answer, headers = api.answer(self.command, url.path, body, urllib.parse.parse_qs(url.query))
                text = json.dumps(answer).encode() if answer is not None else b""
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = _answer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def env(self) -> dict[str, str]:
        """What an Azure machine with an identity has, and where ARM is."""
        return {
            "IDENTITY_ENDPOINT": f"{self.url}/token",
            "IDENTITY_HEADER": "x",
            "AZURE_TOKEN_CREDENTIALS": "prod",
            "NCDEMO_ARM_URL": self.url,
        }

    def vm(self, name: str, commands: dict[str, Any], power: str = "running") -> None:
        self.powers[name] = power
        self.commands[name] = commands

    def answer(self, method: str, path: str, body: Any, query: dict[str, list[str]]) -> tuple[int, Any, dict[str, str]]:
        if path.startswith("/operations/"):
            return self._operation(path)
        assert query["api-version"], "every call says its version"
        if path == "/subscriptions":
            return 200, {"value": [{"subscriptionId": one} for one in self.subscriptions]}, {}
        if method == "GET" and (thing := self.things.get(path.removeprefix("/subscriptions/0000-sub/"))) is not None:
            return 200, thing, {}
        found = re.fullmatch(
            r"/subscriptions/0000-sub/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/([\w-]+)(?:/(\w+)/?([\w-]*))?", path
        )
        if not found or found[1] not in self.powers:
            return 404, {"error": {"message": "The Resource was not found.\nMore."}}, {}
        vm, what, name = found.groups()
        if what is None:
            return 200, {"name": vm, "location": "eastus"}, {}
        if what == "runCommands" and method == "DELETE":
            del self.commands[vm][name]
            return self._later([{"status": "InProgress"}, {"status": "Succeeded"}], None)
        if what == "runCommands" and method == "PUT":
            return self._run_command(vm, name, body)
        if what == "instanceView":
            codes = ["ProvisioningState/succeeded", f"PowerState/{self.powers[vm]}"]
            return 200, {"statuses": [{"code": code} for code in codes]}, {}
        if what == "runCommands" and name:
            return 200, {"name": name, "properties": {"instanceView": self.commands[vm][name]}}, {}
        if what == "runCommands":
            return 200, {"value": [{"name": one, "properties": {}} for one in self.commands[vm]]}, {}
        if what == "start" and method == "POST":
            self.powers[vm] = "running"
            return self._later([{"status": "InProgress"}, {"status": "Succeeded"}], None)
        if what == "runCommand" and method == "POST" and self.powers[vm] == "running":
            self.scripts.append((vm, "\n".join(body["script"])))
            output = {
                "value": [{"code": "ProvisioningState/succeeded", "message": f"Enable succeeded: \n[stdout]\n{self.says}\n\n[stderr]\n"}]
            }
            return self._later([{"status": "InProgress"}, {"status": "Succeeded", "properties": {"output": output}}], output)
        return 409, {"error": {"message": "The VM is not running."}}, {}

    def _run_command(self, vm: str, name: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        """Run a script as a resource that stays, with what it said; the same script is not run twice."""
        assert body["location"] == "eastus", "Azure refuses a run command that isn't where its VM is"
        assert name not in self.commands[vm], "an update with the same script runs nothing"
        self.scripts.append((vm, body["properties"]["source"]["script"]))
        ended = datetime.datetime.now(datetime.UTC).isoformat()
        good = "ncdemo: ok" in self.says
        view = {"executionState": "Succeeded" if good else "Failed", "exitCode": 0, "output": f"{self.says}\n", "endTime": ended}
        self.commands[vm][name] = view if good else view | {"output": "", "error": self.says}
        status, _, headers = self._later([{"status": "InProgress"}, {"status": "Succeeded"}], {"name": name})
        return 201 if status == 202 else status, {"name": name}, headers

    def _later(self, steps: list[dict[str, Any]], result: Any) -> tuple[int, Any, dict[str, str]]:
        name = str(len(self._operations))
        self._operations[name] = [*steps, {"result": result}]
        where = f"{self.url}/operations/{name}"
        return 202, None, {"Azure-AsyncOperation": where, "Location": f"{where}/result"}

    def _operation(self, path: str) -> tuple[int, Any, dict[str, str]]:
        steps = self._operations[path.split("/")[2]]
        if path.endswith("/result"):
            return 200, steps[-1]["result"], {}
        return 200, steps.pop(0) if len(steps) > 2 else steps[0], {"Retry-After": "0"}
