"""Who is told of an alert: a real Prometheus with the shipped rules, a real Alertmanager, and a receiver on this machine."""

import copy
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.infra.alertmanager import SECRETS, WEBHOOK_KEY
from ncdemo.infra.prometheus import CONFIG
from ncdemo.infra.render import Rendered, render
from ncdemo.infra.show import as_json, as_text, rendered_files
from ncdemo.infra.stand_in import SECRET, WEBHOOK_STAND_IN
from ncdemo.spec.base import SpecError
from ncdemo.spec.stack_file import stack_of

EXISTING = {"target": "kubernetes", "images": {"repository": "registry.example/ncdemo"}, "monitoring": {"in_cluster": True}}
ADDRESS = {"alert_webhook": {"secure": "v1:encrypted"}}


def of(**config: Any) -> Rendered:
    return render(stack_of("test", copy.deepcopy({**EXISTING, **config}), {}))


def data(found: Rendered, name: str) -> dict[str, str]:
    return next(m["data"] for m in found.manifests() if m["kind"] == "ConfigMap" and m["metadata"]["name"] == name)


def test_there_is_none_without_an_address() -> None:
    found = of()
    assert "alertmanager" not in json.dumps(found.manifests())
    assert "alerting" not in yaml.safe_load(data(found, "prometheus")["prometheus.yml"])


def test_prometheus_alone_reaches_it() -> None:
    found = of(**ADDRESS)
    (policy,) = [m for m in found.manifests() if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == "alerts"]
    assert policy["spec"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "alertmanager"}
    sender = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}
    assert policy["spec"]["ingress"] == [{"from": [sender], "ports": [{"protocol": "TCP", "port": 9093}]}]
    others = [m for m in found.manifests() if m["kind"] == "NetworkPolicy" and m["metadata"]["namespace"] == "monitoring"]
    assert [m["metadata"]["name"] for m in others if "9093" in json.dumps(m)] == ["alerts"]


def test_the_address_is_nowhere_in_plain_text() -> None:
    found = of(**ADDRESS)
    (secret,) = [m for m in found.manifests() if m["kind"] == "Secret"]
    assert secret["stringData"] == {WEBHOOK_KEY: SECRET}
    everything = [json.dumps(as_json(found)), as_text(found), *rendered_files(found).values()]
    assert not [text for text in everything if WEBHOOK_STAND_IN in text]


@pytest.mark.parametrize("address", ["https://hooks.example/T0/B0/x", {"secure": ""} | {"more": 1}])
def test_an_address_in_plain_text_is_refused(address: Any) -> None:
    with pytest.raises(
        SpecError, match=r"alert_webhook: is in plain text; remove it, .* pulumi config set --secret alert_webhook"
    ) as caught:
        of(alert_webhook=address)
    assert "hooks.example" not in str(caught.value)


def test_an_address_that_nobody_uses_is_said() -> None:
    said = "alert_webhook: no effect without monitoring.in_cluster, whose Prometheus has the rules"
    assert of(**ADDRESS, monitoring={}).stack.notes == [said]
    assert of(**ADDRESS).stack.notes == []


@contextmanager
def receiving() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Take posts of JSON."""
    got: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def exporting(text: Callable[[], str]) -> Iterator[str]:
    """Serve a page of metrics; enter with host:port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def here(text: str, url: str) -> str:
    """Return Alertmanager's configuration with the address in it, as Debian's 0.25 reads none from a file, and seconds for minutes."""
    assert f"url_file: {SECRETS}/{WEBHOOK_KEY}" in text
    text = text.replace(f"url_file: {SECRETS}/{WEBHOOK_KEY}", f"url: {url}")
    return text.replace("group_wait: 30s", "group_wait: 1s").replace("group_interval: 5m", "group_interval: 1s")


def until(happened: Callable[[], Any], log: Path, within_s: float = 60) -> Any:
    end = time.monotonic() + within_s
    while not (found := happened()):
        assert time.monotonic() < end, f"didn't happen within {within_s} s: {log.read_text()[-2000:]}"
        time.sleep(0.1)
    return found


def test_amtool_takes_the_configuration(servers: Any, tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    good = here(data(of(**ADDRESS), "alertmanager")["alertmanager.yml"], "http://127.0.0.1:9/hook")
    for text, code in ((good, 0), (good.replace("receiver: webhook", "receiver: nobody"), 1)):
        path.write_text(text)
        done = subprocess.run([servers.needs("amtool"), "check-config", path], capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr


def test_whoever_is_to_be_told_is_told_and_that_it_is_over(servers: Any, tmp_path: Path) -> None:
    """XID 79 of a live run trips NcdemoRunGpuXid, which waits for nothing."""
    found = of(**ADDRESS)
    run = 'job="ncdemo", run="r", instance="n", node="0"'
    broken = [f'ncdemo_gpu_xid_errors_total{{{run}, gpu="0", xid="79"}} 1\n']
    files = data(found, "prometheus")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    config = yaml.safe_load(files["prometheus.yml"].replace(CONFIG, str(tmp_path)))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (receiver,) = config["alerting"]["alertmanagers"]
    assert receiver == {"static_configs": [{"targets": ["alertmanager.monitoring.svc:9093"]}]}
    with (
        receiving() as (hook, got),
        exporting(lambda: f"ncdemo_run_seen_timestamp_seconds{{{run}}} {time.time()}\n" + "".join(broken)) as page,
    ):
        (tmp_path / "alertmanager.yml").write_text(here(data(found, "alertmanager")["alertmanager.yml"], hook))
        with servers.alertmanager(tmp_path, tmp_path / "alertmanager.yml") as manager:
            receiver["static_configs"][0]["targets"] = [manager.removeprefix("http://")]
            config["scrape_configs"][0]["static_configs"][0]["targets"] = [page]
            (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
            log = tmp_path / "alertmanager.log"
            with servers.prometheus(tmp_path, tmp_path / "prometheus.yml"):
                first = until(lambda: next(iter(got), None), log)
                (alert,) = first["alerts"]
                assert (first["status"], first["receiver"], alert["labels"]["alertname"]) == ("firing", "webhook", "NcdemoRunGpuXid")
                assert alert["labels"].items() >= {"run": "r", "gpu": "0", "xid": "79", "severity": "critical"}.items()
                assert alert["annotations"]["summary"] == "GPU 0 of node 0 (n): XID 79 under run r"
                broken.clear()
                until(lambda: [one for one in got if one["status"] == "resolved"], log)
