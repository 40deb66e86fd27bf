"""The size of the VM that a run is paid by: as a stack's job is told, as Azure's metadata endpoint says, or not known."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from workloads.metrics import azure_vm as where
from workloads.metrics.azure_vm import azure_vm
from workloads.metrics.environment import environment

UNKNOWN = {"vm_size": None, "region": None}


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A machine of Azure: its chassis, and its metadata endpoint on loopback."""
    says: dict[str, Any] = {"status": 200, "body": json.dumps({"vmSize": "Standard_NC40ads_H100_v5", "location": "eastus"}), "asked": 0}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            says["asked"] += 1
            self.send_response(says["status"] if self.headers.get("Metadata") == "true" else 400)
            self.end_headers()
            self.wfile.write(says["body"].encode())

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        (tmp_path / "tag").write_text(where.AZURE_TAG + "\n")
        monkeypatch.setattr(where, "ASSET_TAG", tmp_path / "tag")
        monkeypatch.setattr(where, "METADATA", f"http://127.0.0.1:{server.server_port}/metadata")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        yield says
        server.shutdown()


def test_a_job_says_what_it_was_told(endpoint: dict[str, Any]) -> None:
    told = {"NCDEMO_VM_SIZE": "Standard_NC80adis_H100_v5", "NCDEMO_REGION": "spaincentral"}
    assert azure_vm(told) == {"vm_size": "Standard_NC80adis_H100_v5", "region": "spaincentral"}
    assert azure_vm({"NCDEMO_VM_SIZE": "x"}) == {"vm_size": "x", "region": None}
    assert endpoint["asked"] == 0


def test_a_machine_of_azure_says_it_itself(endpoint: dict[str, Any]) -> None:
    assert azure_vm({}) == {"vm_size": "Standard_NC40ads_H100_v5", "region": "eastus"}
    assert environment("abc")["azure"] == azure_vm({})


@pytest.mark.parametrize(("status", "body"), [(500, "{}"), (200, "no JSON"), (200, "[]"), (200, "{}")])
def test_an_endpoint_that_says_nothing_leaves_it_unknown(status: int, body: str, endpoint: dict[str, Any]) -> None:
    endpoint |= {"status": status, "body": body}
    assert azure_vm({}) == UNKNOWN


def test_no_other_machine_is_asked(endpoint: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tag").write_text("No Asset Tag\n")
    assert azure_vm({}) == UNKNOWN
    monkeypatch.setattr(where, "ASSET_TAG", tmp_path / "nothing")
    assert azure_vm({}) == UNKNOWN
    assert endpoint["asked"] == 0
