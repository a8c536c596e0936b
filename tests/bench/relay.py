"""A relay as anybody would write it by hand on aiohttp, with no features at all: the yardstick.

python -m tests.bench.relay PORT UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PORT, UPSTREAM = int(sys.argv[1]), f"http://127.0.0.1:{sys.argv[2]}"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}
SESSION = web.AppKey("session", ClientSession)


def end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


async def relay(request: web.Request) -> web.StreamResponse:
    body, headers = await request.read(), end_to_end(request.headers)
    async with request.app[SESSION].post(UPSTREAM + request.path, data=body, headers=headers) as upstream:
        response = web.StreamResponse(status=upstream.status, headers=end_to_end(upstream.headers))
        await response.prepare(request)
        async for data in upstream.content.iter_any():
            await response.write(data)
        await response.write_eof()
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=600)) as app[SESSION]:
        yield


app = web.Application(client_max_size=64 * 2**20)
app.cleanup_ctx.append(session)
app.router.add_post("/{path:.*}", relay)
web.run_app(app, host="127.0.0.1", port=PORT, access_log=None, print=None, loop=uvloop.new_event_loop())
