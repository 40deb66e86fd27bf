"""The Unsloth strategy."""
