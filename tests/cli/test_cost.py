"""`ncdemo cost` as a user runs it: without a network, and with a stand-in of Azure's price list."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.subscription.stand_in import azure

ROOT = Path(__file__).resolve().parents[2]


def cost(*words: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ncdemo", "cost", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **env}, timeout=60)


def test_a_stack_says_idle_full_spot_and_each_job() -> None:
    done = cost("aks-dev")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert "  together                                                     0.26     14.22" in text
    assert "full, with spot pools at spot prices: 3.26 to 5.86" in text
    assert "the most it may cost" in text
    assert "ncdemo's table, seen 2026-08 to 2026-11" in text


def test_live_asks_the_price_list() -> None:
    with azure() as cloud:
        done = cost("aks-dev", "--live", "--json", NCDEMO_PRICES_URL=cloud.prices_url)
    data = json.loads(done.stdout)
    assert data["full_usd_per_h"] == pytest.approx(0.25596 - 0.192 + 0.20 + 2 * 7.10, abs=1e-3)
    assert data["prices"].startswith("machines: Azure Retail Prices, ")


def test_a_run_says_what_it_cost(tmp_path: Path) -> None:
    made = {"kind": "train", "run_id": "r", "name": "r", "status": "finished", "spec_hash": "a", "started_at": "", "duration_s": 3600}
    (tmp_path / "result.json").write_text(json.dumps(made))
    done = cost(str(tmp_path), "--size", "Standard_NC40ads_H100_v5")
    assert "r (finished): 3600 s, on 1 x Standard_NC40ads_H100_v5 in eastus" in done.stdout
    assert "pay as you go  6.98 USD" in done.stdout
    assert "spot           1.50 to 2.80 USD" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "no stack 'nope'; there are: aks-dev"),
        (["aks-dev", "--nodes", "2"], "--size and --nodes are of a run, and aks-dev isn't a run directory; leave them out"),
        (["aks-dev", "--region", "East US"], "an Azure region without spaces, e.g. eastus"),
    ],
)
def test_mistakes_are_one_clear_line(words: list[str], message: str) -> None:
    done = cost(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
