"""Azure Resource Manager, asked as whoever is logged in. An answer that doesn't come has a reason, and is never guessed.

arm = Arm(DefaultAzureCredential())
arm.get("/subscriptions", "2022-12-01")["value"]
"""

import os
import time
from collections.abc import Iterator
from typing import Any, Protocol, Self

import httpx

NCDEMO_ARM_URL = "NCDEMO_ARM_URL"
"""Azure Resource Manager of another cloud, e.g. https://management.usgovcloudapi.net (unset: Azure's public one)."""
ARM_URL = "https://management.azure.com"
TIMEOUT_S = 20.0
RETRY_S = 2.0
"""A throttled or failed question is asked once more, after what Retry-After says, at most so long."""


class NoAnswer(Exception):
    """Why Azure didn't say: no rights, no such thing, too slow, or itself in trouble."""

    def __init__(self, status: int | None, why: str) -> None:
        super().__init__(why)
        self.status = status


class Credential(Protocol):
    def get_token(self, *scopes: str) -> Any: ...


class Arm:
    """A client of Azure Resource Manager. It may be used by several threads."""

    def __init__(self, credential: Credential, url: str | None = None) -> None:
        self.url = (url or os.environ.get(NCDEMO_ARM_URL) or ARM_URL).rstrip("/")
        # Of this very endpoint: a token of Azure's public cloud never goes elsewhere.
        self._token = credential.get_token(f"{self.url}/.default").token
        self._client = httpx.Client(timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def get(self, path: str, version: str, **query: str) -> dict[str, Any]:
        return self._ask("GET", f"{self.url}{path}", params={"api-version": version, **query})

    def post(self, path: str, version: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", f"{self.url}{path}", params={"api-version": version}, json=body)

    def every(self, path: str, version: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a list, page after page."""
        page = self.get(path, version, **query)
        while True:
            yield from page.get("value", [])
            # A link that leads elsewhere would take the token along.
            if not (link := page.get("nextLink")) or not link.startswith(self.url + "/"):
                return
            page = self._ask("GET", link)

    def _ask(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        return answer(self._client, method, url, headers={"Authorization": f"Bearer {self._token}"}, **more)


def answer(client: httpx.Client, method: str, url: str, **more: Any) -> dict[str, Any]:
    """Return a JSON object. Raise NoAnswer with the reason."""
    for last in (False, True):
        try:
            response = client.request(method, url, **more)
        except httpx.TimeoutException:
            raise NoAnswer(None, f"no answer in {client.timeout.read:g} s") from None
        except httpx.HTTPError as error:
            raise NoAnswer(None, f"can't be reached ({type(error).__name__})") from None
        if last or (response.status_code != 429 and response.status_code < 500):
            break
        time.sleep(pause_s(response))
    if response.status_code >= 400:
        raise NoAnswer(response.status_code, f"HTTP {response.status_code}{code(response)}")
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NoAnswer(response.status_code, "the answer isn't a JSON object")
    return found


def pause_s(response: httpx.Response) -> float:
    said = response.headers.get("Retry-After", "")
    return min(float(said), RETRY_S) if said.isdigit() else RETRY_S / 4


def code(response: httpx.Response) -> str:
    """Return Azure's own word for an error, e.g. ', AuthorizationFailed'."""
    try:
        return f", {response.json()['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return ""
