"""A Kubernetes API, by the official client: plain data in and out, and one line with the remedy for what it answers.

kube = Kube.connect("aks-ncdemo-dev", None, "az aks get-credentials -g rg -n aks-ncdemo-dev")
kube.ask("GET", "/apis/batch/v1/namespaces/ncdemo/jobs", labelSelector="app.kubernetes.io/name=ncdemo-job")["items"]
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from ncdemo.operate.job import Unreachable
from ncdemo.spec.base import SpecError

CONNECT_S, READ_S = 10.0, 60.0
SILENT_S = 300.0
"""A stream of a log that says nothing for so long is opened again: the connection may be dead."""


class NotThere(SpecError):
    """What was asked for doesn't exist."""


class Refused(SpecError):
    """This login may not do that."""


class LoggedOut(SpecError):
    """The cluster knows nobody by this login."""


class Kube:
    def __init__(self, client: Any, read_s: float = READ_S) -> None:
        self._client, self._read_s = client, read_s
        self.host: str = client.configuration.host

    @classmethod
    def connect(cls, context: str | None, kubeconfig: str | None, login: str, read_s: float = READ_S) -> Self:
        """Return the API of a context. `login` is the command that brings the context. Raise SpecError when it can't be used."""
        try:
            from kubernetes import client, config
        except ModuleNotFoundError:
            raise SpecError("the Kubernetes client isn't installed; run scripts/setup_env.sh --extra infra") from None
        from urllib3.util import Retry

        settings = client.Configuration()
        settings.retries = Retry(total=2, backoff_factor=0.5)
        # The client reads KUBECONFIG when it is imported, and no later.
        path = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        shown = f"context {context}" if context else "the current context"
        try:
            return cls(config.new_client_from_config(path, context, persist_config=False, client_configuration=settings), read_s)
        except (config.ConfigException, OSError) as error:
            said = (str(error).splitlines() or ["no reason"])[0].rstrip(".")
            raise SpecError(f"kubeconfig: {shown} can't be used ({said}); bring it with: {login}") from None

    def ask(self, method: str, path: str, body: Any = None, kind: str = "object", **query: Any) -> Any:
        """Return what the API answers; `kind="str"` for what isn't JSON. Raise NotThere, Refused, LoggedOut, Unreachable or SpecError."""
        with self._explained(f"{method} {path}"):
            return self._call(method, path, body, query, {200: kind, 201: kind, 202: kind}, _request_timeout=(CONNECT_S, self._read_s))

    @contextmanager
    def lines(self, path: str, **query: Any) -> Iterator[Iterator[bytes]]:
        """Yield the lines of an answer as they come."""
        self.ask("GET", path, kind="str", **{name: query[name] for name in ("container",)}, limitBytes=1)  # a mistake has its words here
        with self._explained(f"GET {path}"):
            answer = self._call("GET", path, None, query, {200: "str"}, _preload_content=False, _request_timeout=(CONNECT_S, SILENT_S))
            try:
                yield iter(answer)
            finally:
                answer.close()
                answer.release_conn()

    def _call(self, method: str, path: str, body: Any, query: dict[str, Any], types: dict[int, str], **options: Any) -> Any:
        headers = {"Accept": "application/json, */*", "Content-Type": "application/json"}
        pairs = [(name, str(value).lower() if isinstance(value, bool) else value) for name, value in query.items() if value is not None]
        return self._client.call_api(path, method, {}, pairs, headers, body=body, response_types_map=types, auth_settings=["BearerToken"],
                                     _return_http_data_only=True, **options)  # fmt: skip

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise self._explain(what, error) from None
        except (HTTPError, OSError) as error:
            said = type(getattr(error, "reason", None) or error).__name__
            raise Unreachable(
                f"the cluster at {self.host} can't be reached ({said}); check that it runs, and the network or VPN to it"
            ) from None

    def _explain(self, what: str, error: Any) -> SpecError:
        status, message = error.status, error.reason
        with suppress(ValueError, KeyError, TypeError):
            message = json.loads(error.body)["message"]
        if status == 404:
            return NotThere(f"{what}: {message}; see what there is with: ncdemo jobs ls")
        # Whose kubeconfig's command gave no token is nobody there: a 403, if the cluster lets nobody ask at all.
        if status == 401 or (status == 403 and "system:anonymous" in message):
            return LoggedOut(f"the cluster at {self.host} doesn't accept this login; log in again: az login, then az aks get-credentials")
        if status == 403:
            return Refused(f"{message}; ask for a role that may do so, e.g. Azure Kubernetes Service RBAC Writer")
        if status == 429 or status >= 500 or status == 0:
            return Unreachable(f"the cluster at {self.host} answers {status}: {message}; try again in a while")
        return SpecError(f"{what}: {message} ({status}); check the job with: kubectl describe job")
