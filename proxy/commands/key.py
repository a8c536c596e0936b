"""``key new NAME``: a random key, shown once, and the table that admits it."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from typing import TYPE_CHECKING

from proxy.commands import Failure

if TYPE_CHECKING:
    import argparse

PREFIX = "sk-proxy-"  # tools that look for leaked secrets, and clients that want `sk-`, know it by that
RANDOM_BYTES = 32


def run(args: argparse.Namespace) -> int:
    name: str = args.name
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise Failure("NAME must be 1 to 64 printable characters", code=2)
    key = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    print(key)
    print()
    print("[[keys]]")
    print(f"name = {json.dumps(name, ensure_ascii=False)}")  # a JSON string is a TOML string
    print(f'sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"')
    print(
        "\nThe key is for the client; it is not kept, and not shown again.\n"
        "The table is for config.toml; SIGHUP makes a running gateway read it.",
        file=sys.stderr,
    )
    return 0
