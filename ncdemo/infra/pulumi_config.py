"""The config of the running Pulumi stack, as a checked stack."""

import json
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, get_config_secret_keys_env, is_config_secret

from ncdemo.spec.stack import StackSpec
from ncdemo.spec.stack_file import PROJECT, SECRETS, Stack, stack_of

TEXTS = {name for name, field in StackSpec.model_fields.items() if isinstance(field.default, str) or field.default is None}


def read_stack() -> Stack:
    """Read every key of the project, so that one with a typing error is refused and not passed over. Raise SpecError."""
    found = {**get_config_env(), **CONFIG.get()}
    config = {key: _value(key, text) for key, text in found.items() if key.rpartition(":")[0] in ("", PROJECT)}
    stack = pulumi.get_stack()
    return stack_of(stack, {key: value for key, value in config.items() if value not in ("", None)}, {}, source=f"Pulumi.{stack}.yaml")


def _value(key: str, text: str) -> Any:
    """Pulumi hands every value over as text, and whatever isn't text as JSON."""
    name = key.rpartition(":")[2]
    if name in SECRETS:
        # Its value stays with Pulumi; what is asked here is whether it is a secret.
        return {"secure": "..."} if is_config_secret(key) or key in get_config_secret_keys_env() else text
    if name in TEXTS:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
