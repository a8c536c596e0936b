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

    from proxy.context import Exchange
    from proxy.errors import GatewayError
    from proxy.observe.record import Record
    from proxy.outlet import Sent

SERVER = "ai-proxy"
JSON = "application/json"
#: Routes whose clients look for the id where Anthropic's SDK does.
_ANTHROPIC = frozenset({"messages", "count_tokens"})


def told(record: Record) -> dict[str, str]:
    """What every answer says of its request."""
    return dict(line.split(": ", 1) for line in _said(record).split("\r\n")[:-1])


def _said(record: Record) -> str:
    id = record.request_id
    lines = f"x-request-id: {id}\r\nServer-Timing: {_timing(record)}\r\n"
    if record.route in _ANTHROPIC:
        lines += f"request-id: {id}\r\n"
    if record.provider:
        lines += (
            f"x-proxy-model: {record.model}\r\nx-proxy-provider: {record.provider}\r\n"
            f"x-proxy-attempts: {record.attempts}\r\n"
        )
    for name, value in record.headers.items():
        lines += f"{name}: {value}\r\n"
    return lines


def _timing(record: Record) -> str:
    now, began, sent = monotonic(), record.began, record.sent_at
    total = int((now - began) * 10_000)  # tenths of milliseconds: to write a float costs more than all the rest
    if not sent:
        return f"total;dur={total // 10}.{total % 10}"
    ours, theirs = int((sent - began) * 10_000), int(((record.first_frame_at or now) - sent) * 10_000)
    return (
        f"gateway;dur={ours // 10}.{ours % 10}, upstream;dur={theirs // 10}.{theirs % 10}, "
        f"total;dur={total // 10}.{total % 10}"
    )


def head(exchange: Exchange, media_type: str, extra: Mapping[str, str] | None = None) -> str:
    """Render the header lines of an exchange's answer, without those of its framing."""
    lines = f"Content-Type: {media_type}\r\nServer: {SERVER}\r\n{_said(exchange.record)}"
    if extra:
        lines += "".join(map("{}: {}\r\n".format, extra, extra.values()))
    exchange.record.answered = True
    origins = exchange.plan.origins
    if origins.any:
        return lines + origins.lines
    ours = headers_for(origins, exchange.request.headers.get("Origin"))
    return lines + "".join(map("{}: {}\r\n".format, ours, ours.values()))


def whole(exchange: Exchange, body: bytes) -> Sent:
    """Answer with JSON."""
    return send_whole(exchange.request, 200, head(exchange, JSON), body)


def refusal(exchange: Exchange, error: GatewayError) -> Sent:
    """Tell a fault as a whole answer, in the client's dialect."""
    record = exchange.record
    record.error, record.reason = error.kind, error.reason
    body = exchange.endpoint.form.body(error, record.request_id)
    known = {"connection", *record.headers}
    extra = {name: value for name, value in error.headers.items() if name.lower() not in known}
    close = "Connection" in error.headers
    return send_whole(exchange.request, error.status, head(exchange, JSON, extra), body, close=close)
