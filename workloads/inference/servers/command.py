"""What a server was really started with, so that a result says everything that is needed to start it again.

write_command(folder, "vllm", server)         # servers/<subject>/command.json
served_versions(run_folder)                   # {"openai": "0.32.0"}
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from workloads.inference.frameworks import engine_version
from workloads.inference.servers.server import Server
from workloads.metrics.redact import SECRET_NAME, redact, redact_arguments
from workloads.run import write_json

log = logging.getLogger("ncdemo.server")
COMMAND_FILE = "command.json"
ENGINES_OWN = ("VLLM_", "SGLANG_", "SGL_", "LMDEPLOY_", "TRTLLM_", "TLLM_", "NCCL_", "CUDA_", "FLASHINFER_", "TORCHINDUCTOR_", "OMP_")
"""Beginnings of variables that engines read; of those whose name tells of a secret the value is left out."""


def write_command(folder: Path, engine: str, server: Server, says: str | None = None) -> None:
    """Write command.json into a server's folder. `says`: the version that the server itself gives. A full disk loses it and no more."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / COMMAND_FILE, command(engine, server, says))
    except OSError as error:
        log.warning("%s: %s; what the server was started with is not in the results", folder / COMMAND_FILE, error)


def command(engine: str, server: Server, says: str | None) -> dict[str, Any]:
    """Return the command, what it wants to read, and how it is asked; no secret is in it."""
    how = server.how
    inherited = {name: value for name, value in sorted(os.environ.items()) if name.startswith(ENGINES_OWN)}
    return {
        "engine": engine,
        "version": None if engine == "openai" else engine_version(engine),
        "server_says": says,
        "argv": redact_arguments(server.argv),
        "env": _redacted(server.env),
        "inherited_env": _redacted(inherited),
        "files": {name: redact(text) for name, text in how.files},
        "url": redact(how.url),
        "model": how.model,
        "endpoint": how.endpoint,
        "request_fields": dict(how.fields),
        "prefix_cache": how.prefix_cache,
        "reset": how.reset,
    }


def served_versions(run_folder: Path) -> dict[str, str]:
    """Return what servers of others said that they are, by engine; those of several subjects are joined."""
    found: dict[str, dict[str, None]] = {}
    for path in sorted(run_folder.glob(f"servers/*/{COMMAND_FILE}")):
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["version"] is None and told["server_says"]:
            found.setdefault(told["engine"], {})[told["server_says"]] = None
    return {engine: ", ".join(versions) for engine, versions in found.items()}


def _redacted(env: dict[str, str]) -> dict[str, str]:
    return {name: "***" if SECRET_NAME.search(name) else redact(value) for name, value in env.items()}
