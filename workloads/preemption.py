"""Azure's notice that it takes this machine back, read from its Scheduled Events endpoint: 30 s ahead, told only to who asks.

    watch(os.environ.get(NCDEMO_SCHEDULED_EVENTS_URL), stop.ask)

https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import httpx

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import NCDEMO_SCHEDULED_EVENTS_URL

LOG = logging.getLogger("ncdemo.job")
POLL_S = 1.0
FIRST_ANSWER_S = 150.0
"""The first question of a machine's life may wait two minutes for its answer."""
NAME_PATH = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
PREEMPT = "Preempt"


def watch(url: str | None, on_preempt: Callable[[str], None]) -> None:
    """Ask in the background until a `Preempt` is for this machine, then call on_preempt("Preempt") once. None: ask nobody."""
    if not url:
        return
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"{NCDEMO_SCHEDULED_EVENTS_URL} = {url!r}: must be an http URL; unset it where there is no such endpoint")
    threading.Thread(target=_watch, args=(url, on_preempt), name="preemption", daemon=True).start()


def _watch(url: str, on_preempt: Callable[[str], None]) -> None:
    failing = False
    # trust_env: the endpoint is on the machine itself, and no proxy may be asked for it.
    with httpx.Client(headers={"Metadata": "true"}, timeout=httpx.Timeout(FIRST_ANSWER_S, connect=10), trust_env=False) as client:
        name = None
        while True:
            try:
                name = name or _machine(client, url)
                answer = client.get(url)
                answer.raise_for_status()
                events = answer.json()["Events"]
                if any(_means_us(event, name) for event in events):
                    LOG.warning("Azure takes this machine back: the job ends")
                    on_preempt(PREEMPT)
                    return
                failing = False
            except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
                if not failing:  # once: it is asked again every second
                    LOG.warning("%s: can't be asked for an eviction (%s); asking on", url, error or type(error).__name__)
                failing = True
            time.sleep(POLL_S)


def _machine(client: httpx.Client, url: str) -> str | None:
    """Return this machine's own name: a scale set's events are told to all of its machines. None when nobody says."""
    answer = client.get(urljoin(url, NAME_PATH))
    return answer.text.strip() if answer.is_success else None


def _means_us(event: dict[str, Any], name: str | None) -> bool:
    resources = event.get("Resources") or []
    return event["EventType"] == PREEMPT and (name is None or not resources or name in resources)
