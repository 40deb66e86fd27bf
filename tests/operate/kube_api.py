"""A Kubernetes API on loopback, of what `ncdemo jobs` uses: Jobs and pods with labels, logs that grow, delete and create as the real one.

with KubeApi() as api:
    api.create(manifest)                      # as a client would
    api.pod("tune-1a2b", "tune-1a2b-x", {"running": {}})
    api.say("tune-1a2b-x", "loss 1.0")
    Path("config").write_text(api.kubeconfig())
"""

import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

TOKEN = "let-me-in"
Manifest = dict[str, Any]
GIVEN = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KubeApi:
    def __init__(self) -> None:
        self.jobs: dict[str, Manifest] = {}
        self.pods: dict[str, Manifest] = {}
        self.words: dict[str, list[tuple[str, str]]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.refuse: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        self.cut_after: int | None = None
        """Cut the next log after so many lines, without an end."""
        self._made = 0
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _answer(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api.asked.append((self.command, url.path, query))
                try:
                    if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                        raise Refused(401, "Unauthorized")
                    if refused := api.refuse(self.command, url.path):
                        raise Refused(*refused)
                    if url.path.endswith("/log"):
                        self._log(url.path.split("/")[-2], query)
                        return
                    status, answer = api.answer(self.command, url.path, query, json.loads(body or b"null"))
                except Refused as error:
                    status, answer = error.status, {"kind": "Status", "message": str(error), "code": error.status}
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = _answer

            def _log(self, pod: str, query: dict[str, str]) -> None:
                """Stream what a pod said, then, with follow, what it says until it ends."""
                if pod not in api.pods:
                    raise Refused(404, f'pods "{pod}" not found')
                if "waiting" in api.state(pod):
                    raise Refused(400, f'container "{query["container"]}" in pod "{pod}" is waiting to start: ContainerCreating')
                said = api.words[pod]
                at = max(0, len(said) - int(query["tailLines"])) if "tailLines" in query else 0
                since = query.get("sinceTime", "")[:19]
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                sent = 0
                while True:
                    goes_on = query.get("follow") == "true" and "running" in api.state(pod)
                    for stamp, text in said[at:]:
                        at += 1
                        if stamp[:19] < since:
                            continue
                        if api.cut_after is not None and sent >= api.cut_after and "follow" in query:
                            api.cut_after = None
                            self.wfile.flush()
                            self.connection.close()
                            self.close_connection = True
                            return
                        line = f"{stamp} {text}\n".encode() if query.get("timestamps") == "true" else f"{text}\n".encode()
                        line = line[: int(query["limitBytes"])] if "limitBytes" in query else line
                        half = len(line) // 2 or len(line)
                        for part in filter(None, (line[:half], line[half:])):
                            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                        sent += 1
                        if "limitBytes" in query:
                            goes_on, at = False, len(said)
                            break
                    if not goes_on:
                        break
                    time.sleep(0.05)
                self.wfile.write(b"0\r\n\r\n")

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that went away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, context: str = "there", token: str = TOKEN) -> str:
        one = {"cluster": {"server": self.url}, "name": "c"}, {"user": {"token": token}, "name": "u"}
        contexts = [{"context": {"cluster": "c", "user": "u"}, "name": context}]
        found = {"apiVersion": "v1", "kind": "Config", "clusters": [one[0]], "users": [one[1]], "contexts": contexts}
        return json.dumps(found | {"current-context": context})

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        found = re.fullmatch(r"/(?:apis/batch|api)/v1(?:/namespaces/([\w-]+))?/(jobs|pods)(?:/([\w.-]+))?", path)
        if not found:
            raise Refused(404, "the server could not find the requested resource")
        space, kind, name = found.groups()
        kept = self.jobs if kind == "jobs" else self.pods
        if method == "POST":
            return 201, self.create(body)
        if name and (name not in kept or kept[name]["metadata"]["namespace"] != space):
            raise Refused(404, f'{kind}.batch "{name}" not found')
        if method == "DELETE":
            wanted = ((body or {}).get("preconditions") or {}).get("uid", kept[name]["metadata"]["uid"])
            if wanted != kept[name]["metadata"]["uid"]:
                raise Refused(409, "the UID in the precondition does not match")
            gone = kept[name]
            gone["metadata"]["deletionTimestamp"] = stamp()
            threading.Timer(0.4, lambda: kept.pop(name, None)).start()
            return 200, {"kind": "Status", "status": "Success"}
        if name:
            return 200, kept[name]
        wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
        items = [one for one in list(kept.values()) if space in (None, one["metadata"]["namespace"])]
        return 200, {"items": [one for one in items if wanted.items() <= one["metadata"].get("labels", {}).items()]}

    def create(self, body: Manifest) -> Manifest:
        """Take a Job as the real API does: what only a server may set is refused or set, and what it adds is added."""
        job = json.loads(json.dumps(body))
        meta, spec = job["metadata"], job["spec"]
        if meta["name"] in self.jobs:
            raise Refused(409, f'jobs.batch "{meta["name"]}" already exists')
        if meta.get("resourceVersion"):
            raise Refused(400, "resourceVersion should not be set on objects to be created")
        if spec.get("selector") or set(GIVEN) & spec["template"]["metadata"].get("labels", {}).keys():
            raise Refused(422, f'Job.batch "{meta["name"]}" is invalid: spec.selector: `selector` not auto-generated')
        self._made += 1
        uid = f"uid-{self._made}"
        meta |= {"uid": uid, "resourceVersion": "1", "generation": 1, "creationTimestamp": stamp(), "managedFields": [{"manager": "x"}]}
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        given = {"controller-uid": uid, "batch.kubernetes.io/controller-uid": uid}
        given |= {"job-name": meta["name"], "batch.kubernetes.io/job-name": meta["name"]}
        spec["template"]["metadata"].setdefault("labels", {}).update(given)
        spec["template"]["metadata"]["creationTimestamp"] = None
        job["status"] = {}
        self.jobs[meta["name"]] = job
        return job

    def pod(self, job: str, name: str, state: Manifest, node: int = 0, **status: Any) -> None:
        owner = self.jobs[job]
        labels = owner["spec"]["template"]["metadata"]["labels"] | {"batch.kubernetes.io/job-completion-index": str(node)}
        meta = {"name": name, "namespace": owner["metadata"]["namespace"], "labels": labels, "creationTimestamp": stamp(), "uid": name}
        self.pods[name] = {"metadata": meta, "spec": {}, "status": status}
        self.words.setdefault(name, [])
        self.set_state(name, state)

    def set_state(self, pod: str, state: Manifest) -> None:
        self.pods[pod]["status"]["containerStatuses"] = [{"name": "job", "state": state}]

    def state(self, pod: str) -> Manifest:
        return self.pods[pod]["status"]["containerStatuses"][0]["state"] if pod in self.pods else {}

    def say(self, pod: str, *texts: str) -> None:
        for text in texts:
            self.words[pod].append((f"{datetime.now(UTC).isoformat(timespec='microseconds')[:26]}{len(self.words[pod]) % 1000:03}Z", text))

    def end(self, job: str, condition: str, reason: str = "", message: str = "") -> None:
        self.jobs[job]["status"] = {"conditions": [{"type": condition, "status": "True", "reason": reason, "message": message}]}


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
