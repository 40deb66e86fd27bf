"""Leave garbage where it is while much is made and little of it dies.

with no_collection(): ...
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Look for no cycles: that takes a sixth of reading samples, which hold none, and a fifth of drawing; afterwards they are found."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
