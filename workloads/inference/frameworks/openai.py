"""Any OpenAI-compatible endpoint by URL: someone else runs it, so nothing of it is started, set or reset."""

import os
from urllib.parse import urlsplit

from ncdemo.spec.base import SpecError
from workloads.inference.frameworks.base import Serve, Settings

API_KEY = "OPENAI_API_KEY"
"""Environment variable with the key of an endpoint that wants one."""


def version() -> str:
    """Return that nobody knows until the endpoint is asked (servers/command.py); nothing need be installed here."""
    return "unknown"


def serve(path: str, settings: Settings, port: int) -> Serve:
    """Return the endpoint; `path` is the model's name there."""
    url = settings.endpoint_url.rstrip("/").removesuffix("/v1")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"endpoint_url = {settings.endpoint_url!r}: not a URL; give one such as http://127.0.0.1:8000")
    return Serve(
        argv=(), url=url, model=path, endpoint=settings.endpoint, health="/v1/models", prefix_cache="unknown",
        api_key_env=API_KEY if os.environ.get(API_KEY) else None,
    )  # fmt: skip
