"""How much memory is in use, as those who hand it out know it.

What is resident beside it is free and kept: blocks that a peak has taken come back to the kernel only where whole pages
of them are free. So resident memory follows the highest peak, and what is in use tells a leak.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Final


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`, of all its heaps."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def _find() -> Callable[[], _MallInfo] | None:
    """The C library's function; none in glibc before 2.33, musl, macOS and Windows."""
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    found.restype = _MallInfo
    return found


_mallinfo: Final = _find()


def python_blocks() -> int:
    """Blocks that Python's allocator has given out: objects that live, about 100 bytes each."""
    return sys.getallocatedblocks()


def native_bytes() -> float:
    """Bytes in use of the C library's heaps: what RocksDB and the clients hold, and texts of more than 512 bytes.

    NaN where the C library does not tell. Python's small objects are in none of these heaps.
    """
    if _mallinfo is None:
        return float("nan")
    found = _mallinfo()
    return float(found.uordblks + found.hblkhd)
