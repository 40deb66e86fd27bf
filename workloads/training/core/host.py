"""Copies of tensors in host memory, taken beside the next forward and backward pass and written while training goes on.

copy = HostCopy()
weights = copy(model.state_dict())      # begins; the next call may use the same memory again
...                                     # forward, backward
copy.before_change()                    # the tensors may change from here on
copy.wait()                             # in the thread that writes: `weights` is whole

Weights and moments only change at the end of a step, so training needn't wait for their copy before that.
"""

import ctypes
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class HostCopy:
    """Copies nested dicts, lists and tuples of tensors. Its memory is kept: fresh pages would cost as much as the copy."""

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._thread = ThreadPoolExecutor(1, "host-copy")
        self._copying: Future[None] | None = None
        self._stream: torch.cuda.Stream | None = None
        self._on_gpu: torch.cuda.Event | None = None
        self.waited_s = 0.0
        """How long `before_change` stood still, in all."""

    def __call__(self, tree: Any) -> Any:
        """Begin to copy; return the tree as it will be, every tensor on the host. Tensors that share memory still do.

        The tensors must not change before `before_change`. Earlier copies are overwritten.
        """
        self.before_change()
        pairs: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}
        copied = self._plan(tree, pairs)
        self._begin([pair for pair in pairs.values() if pair[1].is_cuda])
        own = [pair for pair in pairs.values() if not pair[1].is_cuda]
        self._copying = self._thread.submit(_copy_all, own) if own else None
        return copied

    def before_change(self) -> None:
        """Hold this thread, on a GPU its stream, until the tensors are copied."""
        start = time.perf_counter()
        if self._copying:
            self._copying.result()
            self._copying = None
        if self._on_gpu:
            torch.cuda.current_stream().wait_event(self._on_gpu)
        self.waited_s += time.perf_counter() - start

    def wait(self) -> None:
        """Wait until the copy is whole on the host."""
        if copying := self._copying:
            copying.result()
        if self._on_gpu:
            self._on_gpu.synchronize()

    def _begin(self, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Copy from the GPU on a stream of its own, behind what was asked of the GPU so far."""
        if not pairs:
            return
        self._stream = self._stream or torch.cuda.Stream()
        self._on_gpu = self._on_gpu or torch.cuda.Event()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
                source.record_stream(self._stream)
            self._on_gpu.record()

    def _plan(self, value: Any, pairs: dict[Any, tuple[torch.Tensor, torch.Tensor]]) -> Any:
        if isinstance(value, torch.Tensor):
            key = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
            if key not in pairs:
                pairs[key] = self._buffer(len(pairs), value), value.detach()
            return pairs[key][0]
        if isinstance(value, dict):
            return {name: self._plan(child, pairs) for name, child in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._plan(child, pairs) for child in value)
        return value

    def _buffer(self, n: int, like: torch.Tensor) -> torch.Tensor:
        if n == len(self._buffers):
            self._buffers.append(torch.empty(0))
        if self._buffers[n].shape != like.shape or self._buffers[n].dtype != like.dtype:
            self._buffers[n] = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
        return self._buffers[n]


def _copy_all(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Copy on the host with one thread, which has the memory's speed: torch's own would get into training's way."""
    for target, source in pairs:
        if source.is_contiguous():
            ctypes.memmove(target.data_ptr(), source.data_ptr(), source.nbytes)
        else:
            target.copy_(source)
