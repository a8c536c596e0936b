"""The gateway with a window: on SIGUSR1 it writes down which tasks it runs and which objects it holds.

python -m tests.bench.watched FILE serve --config CONFIG
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path

from proxy.cli import main

#: Whose objects are counted; what was there when the gateway began to serve is frozen, and left out.
COUNTED = ("proxy.", "aiohttp.", "asyncio.", "_asyncio", "uvloop.")


def look(*_: object) -> None:
    """Write the report aside and put it in its place, so that nobody reads half of it."""
    gc.collect()
    kinds = Counter(f"{type(held).__module__}.{type(held).__qualname__}" for held in gc.get_objects())
    tasks: list[str] = []
    with contextlib.suppress(RuntimeError):  # it does not serve yet, or no more
        tasks = [getattr(task.get_coro(), "__qualname__", task.get_name()) for task in asyncio.all_tasks()]
    report = {"tasks": tasks, "objects": {kind: kinds[kind] for kind in kinds if kind.startswith(COUNTED)}}
    aside = file.with_suffix(".new")
    aside.write_text(json.dumps(report))
    aside.replace(file)


file = Path(sys.argv[1])
signal.signal(signal.SIGUSR1, look)
sys.exit(main(sys.argv[2:]))
