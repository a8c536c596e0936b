"""One attempt at a provider: HTTP/1.1 over an `asyncio.Protocol` with a C parser.

The face is narrow: `Upstream.send(origin, request, receiver)` gives a `Call` to pause, resume or
abort, and the receiver is told the head, the body as it comes, and the end.
"""

from proxy.upstream.connection import Call, Head, Receiver
from proxy.upstream.pool import Upstream

__all__ = ["Call", "Head", "Receiver", "Upstream"]
