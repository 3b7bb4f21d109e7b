"""How much memory is in use, as those who hand it out know it, and giving back what is not.

What is resident beside it is free and kept: blocks that a peak has taken come back to the kernel only where whole pages
of them are free. So resident memory follows the highest peak, and what is in use tells a leak.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`, of all its heaps."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def _of_glibc(name: str, result: Any = ctypes.c_int) -> Any:
    """A function of the C library; None where it has none of that name (musl, macOS), or there is none (Windows)."""
    try:
        found = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    found.restype = result
    return found


_mallinfo: Final = _of_glibc("mallinfo2", _MallInfo)  # since glibc 2.33
_malloc_trim: Final = _of_glibc("malloc_trim")


def trim() -> None:
    """Give back whole free pages of the C library's heaps: 1 or 2 ms of CPU. Nothing where it is not glibc's."""
    if _malloc_trim is not None:
        _malloc_trim(0)


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
