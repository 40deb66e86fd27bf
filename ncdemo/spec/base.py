"""What every spec model shares: unknown keys refused, values frozen, types strict, one hash."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class SpecError(Exception):
    """A mistake in what the user wrote: one line each, saying where, key, value, what is allowed and what to do."""


class Spec(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the spec with every default filled in, as plain JSON types."""
        return self.model_dump(mode="json")

    def spec_hash(self) -> str:
        """Return 12 hex digits of the sha256 of the resolved spec; equal specs have equal hashes on every machine."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]
