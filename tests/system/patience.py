"""How long tests wait for programs: their deadlines, times what a sanitizer costs.

A deadline is only ever reached by a test that fails, so it can be generous.
"""

import os

SANITIZER = os.environ.get("LUNA_SANITIZED")  # "asan", "tsan"; None: the programs as they are
_SLOWER = {None: 1, "asan": 4, "tsan": 10}[SANITIZER]


def patient(deadline_s):
    return deadline_s * _SLOWER
