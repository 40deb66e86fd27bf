"""A real Azure blob service for tests: Azurite, Microsoft's emulator, on a free loopback port with a key of its own.

    with Azurite(tmp_path / "blobs") as azurite:
        azurite.container("metrics")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
        azurite.stop(), azurite.start()         # an outage; what was acknowledged stays

npm install --no-audit --no-fund --prefix .cache/azurite azurite@3.35.0 brings it. Ends its own process only.
"""

import base64
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
ACCOUNT = "ncdemo"


def find() -> str | None:
    """Return the path of azurite-blob, or None; tests skip then."""
    local = ROOT / ".cache" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    return str(local) if local.exists() else shutil.which("azurite-blob")


class Azurite:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        endpoint = f"http://127.0.0.1:{self._port}/{ACCOUNT}"
        self.connection_string = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={self.key};BlobEndpoint={endpoint};"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        address = ["--blobHost", "127.0.0.1", "--blobPort", str(self._port)]
        command = [
            find() or "azurite-blob",
            *address,
            "--location",
            str(self._folder),
            "--silent",
            "--skipApiVersionCheck",
            "--disableTelemetry",
        ]
        env = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{self.key}"}
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise RuntimeError(f"Azurite did not start (exit {self._process.poll()})") from None
                time.sleep(0.1)

    def stop(self) -> None:
        """End it in good order, which writes down what it has acknowledged."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def container(self, name: str) -> Any:
        """Make a container and return its client; the caller closes it."""
        from azure.storage.blob import ContainerClient

        client = ContainerClient.from_connection_string(self.connection_string, name)
        client.create_container()
        return client

    def blobs(self, name: str) -> dict[str, bytes]:
        """Return what a container holds."""
        from azure.storage.blob import ContainerClient

        with ContainerClient.from_connection_string(self.connection_string, name) as client:
            return {blob.name: client.download_blob(blob.name).readall() for blob in client.list_blobs() if blob.size is not None}
