"""Azure Resource Manager by REST, with this machine's identity: VMs and what runs on them.

arm = Arm.connect()
arm.ask("GET", f"{group}/providers/Microsoft.Compute/virtualMachines/vm-h100-0", **{"$expand": "instanceView"})
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from ncdemo.operate.job import Unreachable
from ncdemo.spec.base import SpecError

NCDEMO_ARM_URL = "NCDEMO_ARM_URL"
"""Another Azure cloud's address, e.g. https://management.usgovcloudapi.net (unset: the public cloud's)."""
ARM_URL = "https://management.azure.com"
COMPUTE = "2024-07-01"
SUBSCRIPTIONS = "2022-12-01"
TIMEOUT_S = 60.0
TRIES = 4
LONGEST_S = 900.0
"""Starting a VM, or a script on it, may take so long."""
Token = Callable[[], str]


class NotThere(SpecError):
    """What was asked for doesn't exist."""


class Arm:
    def __init__(self, url: str, token: Token, close: Callable[[], None], timeout_s: float = TIMEOUT_S) -> None:
        import httpx

        self._url, self._token, self._close = url.rstrip("/"), token, close
        self._client = httpx.Client(timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._close()

    @classmethod
    def connect(cls, timeout_s: float = TIMEOUT_S) -> Self:
        """Return Azure's API with DefaultAzureCredential."""
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import DefaultAzureCredential

        url = os.environ.get(NCDEMO_ARM_URL) or ARM_URL
        credential = DefaultAzureCredential()

        def token() -> str:
            try:
                return credential.get_token(f"{url.rstrip('/')}/.default").token
            except ClientAuthenticationError:
                raise SpecError("no identity that Azure accepts; log in with: az login") from None

        return cls(url, token, credential.close, timeout_s)

    def subscription(self) -> str:
        """Return the subscription: AZURE_SUBSCRIPTION_ID or ARM_SUBSCRIPTION_ID, else the only one that this identity sees."""
        if given := os.environ.get("AZURE_SUBSCRIPTION_ID") or os.environ.get("ARM_SUBSCRIPTION_ID"):
            return given
        found = [one["subscriptionId"] for one in self.ask("GET", "/subscriptions", version=SUBSCRIPTIONS)["value"]]
        if len(found) != 1:
            said = "no subscription" if not found else f"{len(found)} subscriptions"
            raise SpecError(f"this identity sees {said}; say which with AZURE_SUBSCRIPTION_ID, e.g. from: az account list -o table")
        return str(found[0])

    def ask(self, method: str, path: str, body: Any = None, version: str = COMPUTE, **query: str) -> Any:
        """Return what Azure answers, at the end of an operation that takes time. Raise NotThere, Unreachable or SpecError."""
        answer = self._send(method, self._url + path, body, {"api-version": version, **query})
        where = answer.headers.get("Azure-AsyncOperation") or answer.headers.get("Location")
        if answer.status_code not in (201, 202) or not where:
            return answer.json() if answer.content else {}
        return self._end(where, answer.headers.get("Location"), f"{method} {path.rpartition('/')[2]}")

    def _end(self, operation: str, location: str | None, what: str) -> Any:
        """Wait for the end of an operation; return its result."""
        until = time.monotonic() + LONGEST_S
        while time.monotonic() < until:
            answer = self._send("GET", operation, None, {})
            found = answer.json() if answer.content else {}
            status = found.get("status", "InProgress" if answer.status_code == 202 else "Succeeded")
            if status in ("Failed", "Canceled"):
                said = (found.get("error") or {}).get("message", status)
                raise SpecError(f"Azure: {what}: {said}; see the VM in the portal, then try again")
            if status == "Succeeded":
                if location and location != operation and "properties" not in found:
                    last = self._send("GET", location, None, {})
                    return last.json() if last.content else found
                return found.get("properties", {}).get("output", found)
            time.sleep(min(10.0, float(answer.headers.get("Retry-After", 2))))
        raise Unreachable(f"Azure: {what}: has not ended in {LONGEST_S / 60:.0f} min; see the VM in the portal, then try again")

    def _send(self, method: str, url: str, body: Any, query: dict[str, str]) -> Any:
        import httpx

        for left in reversed(range(TRIES)):
            try:
                answer = self._client.request(
                    method, url, json=body, params=query or None, headers={"Authorization": f"Bearer {self._token()}"}
                )
            except httpx.HTTPError as error:
                if left == 0:
                    said = type(error).__name__
                    raise Unreachable(
                        f"Azure at {self._url} can't be reached ({said}); check this machine's network and {NCDEMO_ARM_URL}"
                    ) from None
                time.sleep(0.5)
                continue
            if answer.status_code not in (429, 500, 502, 503, 504) or left == 0:
                break
            time.sleep(min(10.0, float(answer.headers.get("Retry-After", 1))))
        if answer.status_code >= 400:
            raise _explained(answer)
        return answer


def _explained(answer: Any) -> SpecError:
    message = answer.reason_phrase
    with suppress(ValueError, KeyError, TypeError):
        message = answer.json()["error"]["message"].splitlines()[0].rstrip(".")
    status = answer.status_code
    if status == 404:
        return NotThere(f"Azure: {message}; check the stack with: ncdemo stack up")
    if status == 401:
        return SpecError(f"Azure doesn't accept this login ({message}); log in again: az login")
    if status == 403:
        return SpecError(f"Azure: {message}; ask for the role Virtual Machine Contributor on the resource group")
    if status == 409:
        return SpecError(f"Azure: {message}; something else is being done to this VM: try again in a minute")
    if status == 429 or status >= 500:
        return Unreachable(f"Azure answers {status}: {message}; try again in a while")
    return SpecError(f"Azure answers {status}: {message}; bring the stack up to date with: ncdemo stack up")
