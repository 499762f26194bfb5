"""Keeping freed memory for the next read.

glibc gives memory back to the kernel when more than 128 KiB are free at the heap's end, or at once what was larger than that,
and the kernel hands it out again page by page, zeroed. 50 states are 2,200 page faults a read: 5 ms of system time where a fault
costs 2 us (virtual machines), beside 3 ms of work. Both limits grow with the largest block that was ever freed, up to 32 MiB, so
one such block, never touched, is all that it takes. Other allocators neither need it nor mind.
"""

from __future__ import annotations

import numpy as np

#: Below DEFAULT_MMAP_THRESHOLD_MAX of malloc.c with its own header. Up to twice as much freed memory is kept.
_BLOCK_BYTES = (32 << 20) - (64 << 10)


def keep_freed_memory() -> None:
    """Of this process, from now on."""
    np.empty(_BLOCK_BYTES, np.uint8)
