"""What is in use follows what is held, and not what has been freed."""

from __future__ import annotations

import math

from app.heap import native_bytes, python_blocks


def test_small_objects_are_told_while_they_live() -> None:
    before = python_blocks()
    held = [float(number) for number in range(50_000)]
    assert abs(python_blocks() - before - 50_000) < 2_000
    del held
    assert abs(python_blocks() - before) < 2_000


if not math.isnan(native_bytes()):

    def test_what_the_c_library_has_given_out_is_told_however_large_and_until_it_is_freed() -> None:
        before = native_bytes()
        held = [bytes(1_000) for _ in range(10_000)]
        large = bytes(64 << 20)  # not of a heap: from the kernel
        assert (10_000 * 1_000 + (64 << 20)) / 2**20 < (native_bytes() - before) / 2**20 < 10 + 64 + 2
        del held, large
        assert native_bytes() - before < 1 << 20
