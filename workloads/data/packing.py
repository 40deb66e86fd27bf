"""Token examples to batches: packed without padding, or padded. In both, no example sees another.

A packed batch lays the examples end to end in one row, [1, T]; `cu_seq_lens` marks their borders for the attention
(core/attention.py) and positions start again at 0 for each. A padded batch is [B, T] with an attention mask.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from workloads.data.tokens import TokenExample

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """One forward pass. Labels are shifted already: labels[b, t] is the target after token t, or -100 for none."""

    input_ids: torch.Tensor
    """int64 [1, T] packed or [B, T] padded."""
    position_ids: torch.Tensor
    """int64, same shape."""
    labels: torch.Tensor
    """int64, same shape."""
    attention_mask: torch.Tensor | None
    """int64 [B, T], 1 for a token and 0 for padding; None when packed."""
    cu_seq_lens: torch.Tensor | None
    """int32 [examples + 1], borders of the packed examples; None when padded."""
    tokens: int
    target_tokens: int
    examples: int

    @property
    def longest(self) -> int | None:
        """Tokens of the longest packed example; None when padded."""
        return None if self.cu_seq_lens is None else int(self.cu_seq_lens.diff().max())


def pack_rows(lengths: Sequence[int], order: Sequence[int], max_seq_len: int) -> list[list[int]]:
    """Group examples, in order, into rows of at most max_seq_len tokens; every example is in exactly one row."""
    rows: list[list[int]] = []
    room = 0
    for i in order:
        if lengths[i] > room:
            rows.append([])
            room = max_seq_len
        rows[-1].append(i)
        room -= lengths[i]
    return rows


def epoch_rows(lengths: Sequence[int], max_seq_len: int, packing: bool, seed: int) -> Iterator[list[int]]:
    """Yield rows of example indices without end: epoch after epoch, each in its own order drawn from `seed`."""
    epoch = 0
    while True:
        order = list(range(len(lengths)))
        random.Random(f"{seed} {epoch}").shuffle(order)
        yield from pack_rows(lengths, order, max_seq_len) if packing else ([i] for i in order)
        epoch += 1


def pack(examples: Sequence[TokenExample]) -> Batch:
    """Lay examples end to end, without padding."""
    lengths = [len(e.ids) for e in examples]
    ids = torch.tensor([i for e in examples for i in e.ids])
    labels = torch.tensor([label for e in examples for label in _labels(e)])
    positions = torch.cat([torch.arange(n) for n in lengths])
    borders = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Batch(ids[None], positions[None], labels[None], None, borders, len(ids), _targets(labels), len(examples))


def pad(examples: Sequence[TokenExample], pad_id: int) -> Batch:
    """Pad examples on the right to the longest of them."""
    longest = max(len(e.ids) for e in examples)
    ids = torch.full((len(examples), longest), pad_id)
    labels = torch.full((len(examples), longest), IGNORED)
    mask = torch.zeros((len(examples), longest), dtype=torch.int64)
    for row, example in enumerate(examples):
        n = len(example.ids)
        ids[row, :n] = torch.tensor(example.ids)
        labels[row, :n] = torch.tensor(_labels(example))
        mask[row, :n] = 1
    positions = torch.arange(longest).expand(len(examples), -1)
    return Batch(ids, positions, labels, mask, None, int(mask.sum()), _targets(labels), len(examples))


def _labels(example: TokenExample) -> list[int]:
    targets = zip(example.ids[1:], example.is_target[1:], strict=True)
    return [token if target else IGNORED for token, target in targets] + [IGNORED]


def _targets(labels: torch.Tensor) -> int:
    return int((labels != IGNORED).sum())
