"""Freed memory stays with the process: what is read again and again costs no page faults."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

#: In a process of its own: what was freed before in this one decides too.
PROGRAM = """
import resource, sys
import numpy as np
from ranker.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def read():
    return [np.ones(73088, np.uint8) for _ in range(50)], np.ones(3 << 20, np.uint8)
for _ in range(3):
    read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    read()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc that gives memory back")
def test_reading_again_touches_no_new_pages() -> None:
    page_bytes = resource.getpagesize()

    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    whole_read = (50 * 73088 + (3 << 20)) // page_bytes
    assert faults("keep") < whole_read / 20 < faults("as it is")
