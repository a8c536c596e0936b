"""The gateway under cProfile, its imports left out.

python -m tests.bench.profiled FILE serve --config CONFIG
"""

from __future__ import annotations

import cProfile
import sys

import proxy.app
import proxy.supervisor  # noqa: F401
from proxy.cli import main

profile = cProfile.Profile()
try:
    profile.runcall(main, sys.argv[2:])
finally:
    profile.dump_stats(sys.argv[1])
