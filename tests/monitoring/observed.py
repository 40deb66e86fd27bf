"""What a stack's Prometheus would see, here: its own config and rules, a real Pushgateway with runs in it, and GPUs.

The GPUs are a text in the form that dcgm-exporter 4.6.1 renders (its internal/pkg/rendermetrics), one line per counter of
ncdemo/infra/dcgm_counters.csv and GPU: GPU 1 is too hot and has had an XID.
"""

import contextlib
import json
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from ncdemo.infra.monitoring import NAMESPACE
from ncdemo.infra.prometheus import CONFIG, prometheus_config

DCGM = Path(__file__).with_name("dcgm.prom")


class Seen:
    """A Prometheus to ask; what is scraped, recorded or evaluated only in a moment is waited for."""

    def __init__(self, url: str) -> None:
        self._url, self._until = url, time.monotonic() + 40

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return the series that answer a query; none when there are none within 40 s of the start."""
        while not (found := self.get("query", query=expr)["result"]) and time.monotonic() < self._until:
            time.sleep(0.2)
        return found

    def alerts(self, names: set[str]) -> dict[str, set[str]]:
        """Return the alerts that aren't quiet by their state, once all these are among them."""
        while True:
            found: dict[str, set[str]] = {"firing": set(), "pending": set(), "inactive": set()}
            for group in self.get("rules", type="alert")["groups"]:
                for rule in group["rules"]:
                    found[rule["state"]].add(rule["name"])
            if names <= found["firing"] | found["pending"] or time.monotonic() > self._until:
                return found
            time.sleep(0.2)


def config_files(folder: Path, rules: dict[str, str], gateway: str, gpus: str) -> Path:
    """Write a stack's own config and rules with local addresses, and seconds for minutes; return the config's path."""
    data = prometheus_config(rules, NAMESPACE, dcgm=True)["data"]
    config = yaml.safe_load(data.pop("prometheus.yml"))
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "1s"}
    config["rule_files"] = [path.replace(CONFIG, str(folder)) for path in config["rule_files"]]
    pushed, scraped = config["scrape_configs"]
    pushed["static_configs"][0]["targets"] = [gateway.removeprefix("http://")]
    del scraped["dns_sd_configs"]
    scraped["static_configs"] = [{"targets": [gpus]}]
    for name, text in data.items():
        (folder / name).write_text(re.sub(r"interval: \d+s", "interval: 1s", text))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextlib.contextmanager
def gpu_exporter() -> Iterator[str]:
    """Serve the text at a free port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = DCGM.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def prometheus(servers: ModuleType, folder: Path, rules: dict[str, str], gateway: str) -> Iterator[Seen]:
    folder.mkdir()
    with gpu_exporter() as gpus, servers.prometheus(folder, config_files(folder, rules, gateway, gpus)) as url:
        yield Seen(url)
