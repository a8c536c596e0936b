"""The heads of answers: which request they belong to, who answered, how long what took.

What aiohttp answers takes them from `told`; an exchange's answer goes to the client's transport
without it, as `head` renders them.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from proxy.outlet import send_whole
from proxy.pages import headers_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from proxy.context import Exchange
    from proxy.errors import GatewayError
    from proxy.observe.record import Record

SERVER = "ai-proxy"
JSON = "application/json"
#: Routes whose clients look for the id where Anthropic's SDK does.
_ANTHROPIC = frozenset({"messages", "count_tokens"})


def told(record: Record) -> dict[str, str]:
    """What every answer says of its request."""
    headers = {"x-request-id": record.request_id, "Server-Timing": _timing(record)}
    if record.route in _ANTHROPIC:
        headers["request-id"] = record.request_id
    if record.provider:
        headers["x-proxy-model"] = record.model
        headers["x-proxy-provider"] = record.provider
        headers["x-proxy-attempts"] = str(record.attempts)
    if record.headers:
        headers.update(record.headers)
    return headers


def _timing(record: Record) -> str:
    now, began, sent = monotonic(), record.began, record.sent_at
    if not sent:
        return f"total;dur={(now - began) * 1000:.1f}"
    first = record.first_frame_at or now
    return (
        f"gateway;dur={(sent - began) * 1000:.1f}, upstream;dur={(first - sent) * 1000:.1f}, "
        f"total;dur={(now - began) * 1000:.1f}"
    )


def head(exchange: Exchange, media_type: str, extra: Mapping[str, str] | None = None) -> bytes:
    """Render the header lines of an exchange's answer, without those of its framing."""
    lines = told(exchange.record)
    if extra:
        lines.update(extra)
    origins = exchange.plan.origins
    if not origins.any:
        lines.update(headers_for(origins, exchange.request.headers.get("Origin")))
    said = [f"Content-Type: {media_type}\r\nServer: {SERVER}\r\n", *map("{}: {}\r\n".format, lines, lines.values())]
    exchange.record.answered = True
    return "".join(said).encode("utf-8", "replace") + (origins.lines if origins.any else b"")


def whole(exchange: Exchange, body: bytes) -> web.StreamResponse:
    """Answer with JSON."""
    return send_whole(exchange.request, 200, head(exchange, JSON), body)


def refusal(exchange: Exchange, error: GatewayError) -> web.StreamResponse:
    """Tell a fault as a whole answer, in the client's dialect."""
    record = exchange.record
    record.error, record.reason = error.kind, error.reason
    body = exchange.endpoint.form.body(error, record.request_id)
    known = {"connection", *record.headers}
    extra = {name: value for name, value in error.headers.items() if name.lower() not in known}
    close = "Connection" in error.headers
    return send_whole(exchange.request, error.status, head(exchange, JSON, extra), body, close=close)
