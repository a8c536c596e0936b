"""A fake provider that costs next to nothing: raw protocols, bytes rendered beforehand.

    python -m tests.bench.upstream PORT

At ``/v1/messages`` it speaks Anthropic's Messages, streams only; everywhere else OpenAI's Chat Completions.
A request says in its prompt what it wants (``Wish``), because that is the one thing every gateway passes on.
Every content frame carries ``@MICROSECONDS.NUMBER@``: the monotonic clock when a paced one was written (0 in
bursts), and its number from 0.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import time
from dataclasses import dataclass
from typing import ClassVar, cast

import uvloop

#: Frames of a burst that go out in one write; the loop turns between two writes, so that streams interleave.
PER_WRITE = 5


@dataclass(frozen=True)
class Wish:
    """What one request asks for: ``frames`` content frames (0: a JSON answer), ``pause_us`` between two.

    ``hold`` keeps the stream open after its first frame, until somebody closes the connection.
    """

    frames: int = 0
    pause_us: int = 0
    hold: bool = False

    def prompt(self) -> str:
        return f"bench: frames={self.frames} pause_us={self.pause_us} hold={self.hold:d}"

    @classmethod
    def read(cls, body: bytes) -> Wish:
        found = re.search(rb"bench: frames=(\d+) pause_us=(\d+) hold=(\d)", body)
        return cls(int(found[1]), int(found[2]), found[3] == b"1") if found else cls()


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def frame(delta: bytes, finish: bytes = b"null") -> bytes:
    return http_chunk(
        b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"m",'
        b'"choices":[{"index":0,"delta":{%b},"logprobs":null,"finish_reason":%b}]}\n\n' % (delta, finish)
    )


def event(name: bytes, fields: bytes) -> bytes:
    """An event of Anthropic's, in a chunk of its own."""
    return http_chunk(b'event: %b\ndata: {"type":"%b"%b}\n\n' % (name, name, fields))


def template(content: bytes) -> bytes:
    """A frame with ``PLACE`` in it, made ready for clock and number."""
    return content.replace(PLACE, b"@%016d.%05d@")


def counted(at_us: int, number: int) -> bytes:
    """A content frame; all are equally long, so the chunk size is rendered once."""
    return CONTENT % (at_us, number)


PLACE = b"@%016d.%05d@" % (0, 0)
CONTENT = template(frame(b'"content":"lorem ipsum %b"' % PLACE))
ROLE = frame(b'"role":"assistant","content":""')
FINISH = frame(b"", b'"stop"')
COUNTS = b'{"prompt_tokens":9,"completion_tokens":100,"total_tokens":109}'
USAGE = http_chunk(
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[],"usage":%b}\n\n' % COUNTS
)
DONE = http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
JSON_BODY = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"lorem ipsum dolor sit amet"},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":%b}' % COUNTS
)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(JSON_BODY),
    JSON_BODY,
)
MESSAGES_OPENING = event(
    b"message_start",
    b',"message":{"id":"msg_bench","type":"message","role":"assistant","model":"t","content":[],"stop_reason":null,'
    b'"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}',
) + event(b"content_block_start", b',"index":0,"content_block":{"type":"text","text":""}')
MESSAGES_CONTENT = template(
    event(b"content_block_delta", b',"index":0,"delta":{"type":"text_delta","text":"lorem ipsum %b"}' % PLACE)
)
MESSAGES_END = (
    event(b"content_block_stop", b',"index":0')
    + event(
        b"message_delta",
        b',"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":100}',
    )
    + event(b"message_stop", b"")
    + b"0\r\n\r\n"
)


@dataclass(frozen=True)
class Plan:
    """An answer, rendered as far as can be: ``writes`` for a burst, the rest for paced streams."""

    wish: Wish
    writes: list[bytes]
    opening: bytes
    content: bytes
    end: bytes

    @classmethod
    def of(cls, body: bytes, *, messages: bool = False) -> Plan:
        wish = Wish.read(body)
        if messages:
            opening, content, end = STREAM_HEAD + MESSAGES_OPENING, MESSAGES_CONTENT, MESSAGES_END
        else:
            usage = USAGE if re.search(rb'"include_usage"\s*:\s*true', body) else b""
            opening, content, end = STREAM_HEAD + ROLE, CONTENT, FINISH + usage + DONE
        if not wish.frames:
            return cls(wish, [WHOLE], opening, content, end)
        frames = [content % (0, number) for number in range(wish.frames)]
        writes = [b"".join(frames[at : at + PER_WRITE]) for at in range(0, len(frames), PER_WRITE)]
        writes[0] = opening + writes[0]
        writes[-1] += end
        return cls(wish, writes, opening, content, end)


class Provider(asyncio.Protocol):
    """One keep-alive connection; requests come with a Content-Length, one at a time."""

    plans: ClassVar[dict[tuple[bool, bytes], Plan]] = {}  # by request: a bench sends few different ones

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = data[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 : head.find(b"\r", at)]) if at >= 0 else 0
        if len(data) < end + length:
            return
        body, self._buffer = data[end : end + length], b""
        messages = head.startswith(b"post /v1/messages ")
        plan = self.plans.get((messages, body))
        if plan is None:
            plan = self.plans[messages, body] = Plan.of(body, messages=messages)
        if plan.wish.hold or plan.wish.pause_us:
            self._transport.write(plan.opening + plan.content % (_now(), 0))
            if not plan.wish.hold:
                self._next(plan, 1, self._loop.time())
        else:
            self._burst(plan.writes, 0)

    def _burst(self, writes: list[bytes], at: int) -> None:
        self._transport.write(writes[at])
        if at + 1 < len(writes) and not self._transport.is_closing():
            self._loop.call_soon(self._burst, writes, at + 1)

    def _next(self, plan: Plan, number: int, began: float) -> None:
        due = began + number * plan.wish.pause_us / 1e6
        self._timer = self._loop.call_at(due, self._tick, plan, number, began)

    def _tick(self, plan: Plan, number: int, began: float) -> None:
        if number < plan.wish.frames:
            self._transport.write(plan.content % (_now(), number))
            self._next(plan, number + 1, began)
        else:
            self._transport.write(plan.end)


def _now() -> int:
    return time.monotonic_ns() // 1000


async def serve(port: int) -> None:
    await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    gc.disable()
    uvloop.run(serve(int(sys.argv[1])))
