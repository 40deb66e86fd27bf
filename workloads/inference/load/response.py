"""HTTP/1.1 responses: the head, where a chunked body ends, and its chunks."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

HEX = b"0123456789abcdefABCDEF"


@dataclass(frozen=True)
class Head:
    status: int
    size: int
    """Bytes of the head, its blank line included."""
    length: int | None
    """Content-Length; None when chunked, or when the body ends with the connection."""
    chunked: bool
    keeps: bool
    """The connection may be used again."""

    @staticmethod
    def of(data: bytes) -> "Head | None":
        """Read a response's head, or return None while it is not all there. A broken one has status 0."""
        end = data.find(b"\r\n\r\n")
        return _head(data[:end]) if end >= 0 else None


@lru_cache(64)
def _head(data: bytes) -> Head:
    lines = data.decode("latin-1").lower().split("\r\n")
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    words, length = lines[0].split(), fields.get("content-length", "")
    status = int(words[1]) if len(words) > 1 and words[0].startswith("http/1.") and words[1].isdecimal() and len(words[1]) == 3 else 0
    chunked = "chunked" in fields.get("transfer-encoding", "")
    # A length of more digits than any file has is none: Python refuses to read thousands of them.
    known = int(length) if length.isdecimal() and len(length) < 19 and not chunked else 0 if status in (0, 204, 304) else None
    keeps = status > 0 and "close" not in fields.get("connection", "") and (chunked or known is not None)
    return Head(status, len(data) + 4, known, chunked, keeps and words[0] != "http/1.0")


def ends_chunked(data: bytes, log: list[Any]) -> bool:
    """Return whether a chunked response ends with its last read, `data`. `log` is stamp, bytes, ... of all of them.

    Raise ValueError where its chunks are broken, so that nobody can say where it ends.
    """
    if len(data) < 7:
        data = b"".join(log[1::2][-7:])
    if not data.endswith(b"\r\n0\r\n\r\n"):
        return False
    if b"[DONE]" in data[-64:]:
        return True
    # The same bytes may stand inside a chunk; the sizes of all chunks decide, at most once or twice a response.
    raw = b"".join(log[1::2])
    head = Head.of(raw)
    assert head
    *_, (end, payload) = chunks(raw, head.size)
    return payload == b"" and end == len(raw)


def chunks(raw: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """Yield (start, payload) of each chunk from a position on, last (end of all, b"") if the end is there.

    Raise ValueError where a chunk's size isn't a hexadecimal number.
    """
    find, size = raw.find, len(raw)
    while (line := find(b"\r\n", position)) >= 0:
        written = raw[position:line].split(b";")[0].rstrip()
        # int() would take a sign too, and with a negative size this would never end.
        if not written or written.translate(None, HEX):
            raise ValueError(f"a chunk's size is {written[:40]!r}")
        length = int(written, 16)
        start = line + 2
        if not length:
            if size >= start + 2:
                yield start + 2, b""
            return
        if start + length > size:
            yield start, raw[start:]
            return
        yield start, raw[start : start + length]
        position = start + length + 2
