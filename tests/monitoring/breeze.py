"""Azure Monitor's ingestion endpoint for tests: takes what Microsoft's exporter posts to /v2.1/track, and fails as it is told.

with Breeze(fail=[(500, {}), (429, {"Retry-After": "1"})]) as azure: azure.connection, azure.points
"""

import datetime
import gzip
import ipaddress
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

KEY = "5ec2e7f0-0d00-4000-8000-00000000cafe"
"""Looks like an instrumentation key; a test that finds it where it doesn't belong fails."""
TOKEN = "token-of-an-identity-7f31"
Point = tuple[str, frozenset[tuple[str, str]], float]


class Breeze:
    def __init__(self, *, fail: list[tuple[int, dict[str, str]]] | None = None, port: int = 0, certificate: Path | None = None) -> None:
        """`fail`: status and headers of the first answers; 206 refuses every other item for now. `certificate`: serve TLS with it."""
        self.items: list[dict[str, Any]] = []
        """What was taken, in order."""
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.failures = list(fail or ())
        breeze = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                items = json.loads(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                breeze.paths.append(self.path)
                breeze.authorizations.append(self.headers.get("Authorization"))
                status, headers, answer = breeze.take(items)
                text = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self) -> None:
                """The machine's identity, as App Service offers it."""
                text = json.dumps({"access_token": TOKEN, "expires_on": "9999999999", "resource": "x", "token_type": "Bearer"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_port}"
        self.connection = connection(self.url)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, items: list[dict[str, Any]]) -> tuple[int, dict[str, str], Any]:
        status, headers = self.failures.pop(0) if self.failures else (200, {})
        errors = []
        if status == 206:
            errors = [{"index": i, "statusCode": 500, "message": "later"} for i in range(0, len(items), 2)]
        if status in (200, 206):
            self.items += [item for i, item in enumerate(items) if i not in {error["index"] for error in errors}]
        return status, headers, {"itemsReceived": len(items), "itemsAccepted": len(items) - len(errors), "errors": errors}

    @property
    def points(self) -> list[Point]:
        """What was taken: name, dimensions, value."""
        found = []
        for item in self.items:
            data = item["data"]["baseData"]
            assert (item["data"]["baseType"], item["iKey"]) == ("MetricData", KEY)
            found += [(one["name"], frozenset(data["properties"].items()), one["value"]) for one in data["metrics"]]
        return found


def connection(url: str) -> str:
    return f"InstrumentationKey={KEY};IngestionEndpoint={url}/"


def certificate(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1 that signs itself, its private key with it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path
