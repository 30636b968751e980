"""What the benchmarks call the memory of a process is that process's own."""

import subprocess
import sys

import numpy as np


def test_the_peak_is_not_that_of_the_process_that_started_it() -> None:
    held = np.ones(2**29, np.uint8)
    code = "from benchmarks.peak import peak; print(peak())"
    found = int(subprocess.check_output([sys.executable, "-c", code]))
    assert 2**10 < found < held.nbytes // 2**10
