"""Copies of tensors in host memory, taken while training waits and written while it goes on.

copy = HostCopy()
weights = copy(model.state_dict())      # the next call may use the same memory again
"""

from typing import Any

import torch


class HostCopy:
    """Copies nested dicts, lists and tuples of tensors. Its memory is kept: fresh pages would cost as much as the copy."""

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []

    def __call__(self, tree: Any) -> Any:
        """Return the tree with every tensor on the host; tensors that share memory still do. Earlier copies are overwritten."""
        seen: dict[Any, torch.Tensor] = {}
        copied = self._copy(tree, seen)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copied

    def _copy(self, value: Any, seen: dict[Any, torch.Tensor]) -> Any:
        if isinstance(value, torch.Tensor):
            key = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
            if key not in seen:
                seen[key] = self._buffer(len(seen), value).copy_(value.detach(), non_blocking=True)
            return seen[key]
        if isinstance(value, dict):
            return {name: self._copy(child, seen) for name, child in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copy(child, seen) for child in value)
        return value

    def _buffer(self, n: int, like: torch.Tensor) -> torch.Tensor:
        if n == len(self._buffers):
            self._buffers.append(torch.empty(0))
        if self._buffers[n].shape != like.shape or self._buffers[n].dtype != like.dtype:
            self._buffers[n] = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
        return self._buffers[n]
