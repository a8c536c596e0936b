"""``serve``: run the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.settings import Overrides
from proxy.supervisor import serve

if TYPE_CHECKING:
    import argparse


def run(args: argparse.Namespace) -> int:
    return serve(args.config, Overrides(host=args.host, port=args.port, workers=args.workers))
