"""A good stream: every frame the moment it is complete, byte for byte, under the right headers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxy import answers, outlet
from proxy.upstream import connection

from . import authorized, chat_body
from .speakers import OPENAI, SIMPLE, Speaker, speakers
from .upstream import (
    DONE,
    EVENT_STREAM,
    Call,
    Gate,
    chunk,
    completion,
    conversation,
    gated_stream,
    pieces,
    sse,
    stream,
    whole,
)
from .wire import request_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .upstream import Upstream

TEXTS = ("Grüße, ", "Wörld ", "🌍🚀", "\u2028\u0085.")
GOOD = [chunk("", role="assistant"), *map(chunk, TEXTS), chunk(finish="stop"), DONE]


# Rule 1: a frame goes on before another byte is read


@speakers
async def test_a_frame_arrives_before_upstream_sends_the_next(upstream: Upstream, gateway: Callable, speaker: Speaker):
    gate = Gate()
    upstream.script = gated_stream([*map(chunk, TEXTS), chunk(finish="stop"), DONE], gate)
    gate.open()
    answer = await speaker.ask(await gateway())
    for number, text in enumerate(TEXTS, start=1):
        assert speaker.text(await answer.event()) == text
        await gate.waited_at(number + 1)  # and no further: this frame alone made the client's
        gate.open()
    gate.open_all()
    rest = await speaker.heard(answer)
    assert (rest.text, rest.complete, rest.whole) == ("", True, True)


@speakers
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"], ids=["lf", "cr", "crlf"])
async def test_a_frame_is_complete_at_its_last_byte_however_it_drips(upstream, gateway, speaker, end):
    """The next byte leaves upstream only when the client has seen the frame: not even half a CRLF is awaited."""
    seen = Gate()

    async def script(call: Call) -> None:
        await call.head()
        for text in TEXTS:
            frame = sse(chunk(text), end=end)
            await call.drip(frame.removesuffix(b"\n") if end == "\r\n" else frame)
            await seen.passed()
            if end == "\r\n":
                await call.send(b"\n")
        await call.drip(sse(chunk(finish="stop"), end=end) + sse("[DONE]", end=end))
        await call.done()

    upstream.script = script
    answer = await speaker.ask(await gateway())
    for text in TEXTS:
        assert speaker.text(await answer.event()) == text
        seen.open()
    assert (await speaker.heard(answer)).complete


@speakers
@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_http_cut_anywhere_carries_the_same_stream(upstream, gateway, speaker, size):
    body = b"".join(frame if isinstance(frame, bytes) else sse(frame) for frame in GOOD)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (body[:50], body[50:333], body[333:])) + b"0\r\n\r\n"

    async def script(call: Call) -> None:
        await call.drip_raw(head + chunks, size)
        call.finished = True

    upstream.script = script
    one = await gateway()
    heard = await speaker.heard(await speaker.ask(one))
    assert (heard.text, heard.complete, heard.whole) == ("".join(TEXTS), True, True)


@pytest.mark.parametrize("speaker", [OPENAI, SIMPLE], ids=["openai", "simple"])
async def test_every_cut_of_the_body_in_two_gives_the_same_stream(upstream, gateway, speaker):
    body = b"".join(sse(frame) for frame in [chunk("ä🌍", created=1)]) + sse(chunk(finish="stop")) + DONE
    one = await gateway(stream={"keepalive": 0})
    connection = await one.connect()
    for at in range(1, len(body), 5 if speaker is SIMPLE else 3):
        upstream.script = pieces([body[:at], body[at:]])
        heard = await speaker.heard(await speaker.ask(one, connection=connection))
        assert (heard.text, heard.complete) == ("ä🌍", True), at


async def test_one_write_of_upstream_is_at_most_one_chunk_for_the_client(upstream, gateway):
    """A read may hold many frames: they leave together.  JavaScript readers rely on whole frames in a chunk."""
    burst = b"".join(sse(chunk(text)) for text in TEXTS)
    upstream.script = pieces(
        [burst + sse(chunk("half"))[:30], sse(chunk("half"))[30:], sse(chunk(finish="stop")), DONE]
    )
    answer = await OPENAI.ask(await gateway())
    found = [piece async for piece in answer.chunks()]
    assert b"".join(found) == burst + sse(chunk("half")) + sse(chunk(finish="stop")) + DONE
    assert all(piece.endswith(b"\n\n") for piece in found)


# Rule 2: byte for byte, except what must not pass


VERBATIM = [
    pytest.param(b'data:{"choices":[]}\n\n', id="no-space-after-the-colon"),
    pytest.param(b'data: {"a":\ndata: 1}\n\n', id="data-over-two-lines"),
    pytest.param(b'data: {"a" : 1,\t"b":1e400 }  \r\n\r\n', id="crlf-and-odd-json"),
    pytest.param(b'data: {"a":1}\r\r', id="cr"),
    pytest.param(b'data: {"a":1}\r\n\n', id="mixed-line-ends"),
    pytest.param(b'event: delta\ndata: {"a":1}\n\n', id="an-event-with-a-name"),
    pytest.param(b"data: not json\n\n", id="no-json"),
    pytest.param(b'data: {"a":"\xe2\x80\xa8\xc2\x85\x0b\x0c\x1c"}\n\n', id="line-ends-of-other-worlds"),
    pytest.param(b'data: {"a":"\xff\xfe"}\n\n', id="no-utf-8"),
    pytest.param(b'x-unknown: 1\ndata: {"a":1}\n\n', id="a-field-nobody-knows"),
    pytest.param(b'data: {"choices":[],"prompt_filter_results":[]}\n\n', id="azures-first-chunk"),
    pytest.param(b'data: {"a":' + b"[" * 5000 + b"]" * 5000 + b"}\n\n", id="deep-nesting"),
    pytest.param(b'data: {"a":' + b"9" * 5000 + b"}\n\n", id="a-number-of-5000-digits"),
    pytest.param(b'data: {"n":"' + b"x" * 300_000 + b'"}\n\n', id="a-frame-larger-than-a-read"),
]


@pytest.mark.parametrize("odd", VERBATIM)
async def test_frames_pass_byte_for_byte(upstream, gateway, odd):
    end = sse(chunk(finish="stop")) + DONE
    upstream.script = pieces([sse(chunk("a")) + odd + end])
    answer = await OPENAI.ask(await gateway())
    assert await answer.body() == sse(chunk("a")) + odd + end


@pytest.mark.parametrize(
    ("wire", "passed"),
    [
        pytest.param(b'id: 7\nretry: 10\ndata: {"a":1}\n\n', b'data: {"a":1}\n\n', id="id-and-retry"),
        pytest.param(b"id: 7\n\nretry: 10\n\nevent: ping\n\n", b"", id="frames-without-data"),
        pytest.param(b"data:\n\ndata: \n\n", b"", id="empty-data"),
        pytest.param(b"data: : OPENROUTER PROCESSING\n\n", b"", id="relics-of-comments"),
        pytest.param(b": OPENROUTER PROCESSING\n\n:\n\n", b"", id="comments"),
    ],
)
async def test_what_clients_choke_on_is_taken_out(upstream, gateway, wire, passed):
    end = sse(chunk(finish="stop")) + DONE
    upstream.script = pieces([b"\xef\xbb\xbf" + sse(chunk("a")) + wire + end])  # the BOM is taken out, too
    answer = await OPENAI.ask(await gateway(stream={"keepalive": 0}))
    assert await answer.body() == sse(chunk("a")) + passed + end


@speakers
async def test_nothing_follows_the_end_mark(upstream, gateway, speaker):
    upstream.script = pieces([b"".join([sse(chunk("a")), sse(chunk(finish="stop")), DONE, sse(chunk("more")), DONE])])
    heard = await speaker.heard(await speaker.ask(await gateway()))
    assert (heard.text, heard.complete, heard.whole) == ("a", True, True)
    assert sum(speaker.ends(frame) for frame in heard.frames) == 1


async def test_other_choices_and_empty_ones_pass(upstream, gateway):
    """With n = 2 an answer is complete when both choices are."""
    two = [
        {"choices": [], "prompt_filter_results": [{}]},
        chunk("a"),
        {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": None}]},
        chunk(finish="stop"),
        {"choices": [{"index": 1, "delta": {"content": "c"}, "finish_reason": None}]},
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
        DONE,
    ]
    upstream.script = stream(two)
    answer = await OPENAI.ask(await gateway(), n=2)
    assert await answer.body() == b"".join(frame if isinstance(frame, bytes) else sse(frame) for frame in two)


# Rule 3: headers


@speakers
@pytest.mark.parametrize(
    "headers",
    [
        EVENT_STREAM,
        {"Content-Type": "text/event-stream"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "text/event-stream", "Cache-Control": "max-age=600", "X-Accel-Buffering": "yes"},
        {},
    ],
    ids=["usual", "no-charset", "text-plain", "cached-and-buffered", "none"],
)
async def test_the_head_of_a_stream_says_how_it_is_to_be_handled(upstream, gateway, speaker, headers):
    upstream.script = stream(GOOD, headers=headers)
    answer = await speaker.ask(await gateway())
    assert answer.status == 200
    assert answer.values("Content-Type") == ["text/event-stream; charset=utf-8"]
    assert answer.values("Cache-Control") == ["no-cache, no-transform"]
    assert answer.values("X-Accel-Buffering") == ["no"]
    assert answer.values("Transfer-Encoding") == ["chunked"]
    assert answer.header("Content-Length") is None
    assert answer.header("Content-Encoding") is None
    assert answer.header("x-request-id")
    assert (answer.header("x-proxy-model"), answer.header("x-proxy-provider")) == ("m", "up")
    assert answer.header("x-proxy-attempts") == "1"
    assert "upstream;dur=" in (answer.header("Server-Timing") or "")
    assert (await speaker.heard(answer)).complete


# Around the stream


@speakers
async def test_any_good_status_begins_a_stream(upstream, gateway, speaker):
    upstream.script = stream(GOOD, status=201)
    answer = await speaker.ask(await gateway())
    assert answer.status == 200
    assert (await speaker.heard(answer)).complete


@speakers
async def test_a_client_of_http_1_0_gets_a_stream_that_ends_with_the_connection(upstream, gateway, speaker):
    upstream.script = stream(GOOD)
    one = await gateway()
    connection = await one.connect()
    asked = request_bytes("POST", speaker.path, headers=authorized("sk-test-key"), json=chat_body(stream=True))
    await connection.send(asked.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    answer = await connection.answer()
    assert answer.header("Transfer-Encoding") is None
    heard = await speaker.heard(answer)
    assert (heard.text, heard.complete) == ("".join(TEXTS), True)
    assert await connection.closed() == "cut"


@speakers
async def test_a_client_connection_carries_stream_after_stream(upstream, gateway, speaker):
    upstream.script = stream(GOOD)
    one = await gateway()
    connection = await one.connect()
    for _ in range(3):
        assert (await speaker.heard(await speaker.ask(one, connection=connection))).complete
    upstream.script = whole()
    answer = await speaker.ask(one, connection=connection, stream=False)
    assert answer.status == 200
    await answer.body()


async def test_streams_do_not_wait_for_each_other(upstream, gateway):
    """Eight at once, each a frame further than the last: none is served by the bytes of another."""
    gates = [Gate() for _ in range(8)]

    async def script(call: Call) -> None:
        number = int(call.asked["messages"][0]["content"])
        await gated_stream([*(chunk(f"{number}.{i}") for i in range(3)), chunk(finish="stop"), DONE], gates[number])(
            call
        )

    upstream.script = script
    one = await gateway()
    for gate in gates:
        gate.open()
    answers = await asyncio.gather(*(one.chat(str(number), stream=True) for number in range(8)))
    for turn in range(3):
        for number in reversed(range(8)):
            assert OPENAI.text(await answers[number].event()) == f"{number}.{turn}"
            gates[number].open()
    for gate in gates:
        gate.open_all()
    for answer in answers:
        assert (await OPENAI.heard(answer)).complete


async def test_unknown_fields_survive_in_both_directions(upstream, gateway):
    frames = [chunk("a", x_provider={"n": 12345678901234567890123}), chunk(finish="stop", obfuscation="xyz"), DONE]
    upstream.script = stream(frames)
    body = (
        b'{"stream":true,"model":"m","x":12345678901234567890123,"y":1.10,'
        b'"messages":[{"role":"user","content":"Hi","z":[]}]}'
    )
    answer = await (await gateway(providers=[{"name": "up", "ask_usage": False}])).request(
        "POST", OPENAI.path, body=body, headers={"Content-Type": "application/json"}
    )
    assert await answer.body() == b"".join(frame if isinstance(frame, bytes) else sse(frame) for frame in frames)
    assert (await upstream.arrived()).body == body


async def test_the_streamed_default_of_the_chat_endpoint_follows_accept(upstream, gateway):
    upstream.script = stream(conversation("a"))
    one = await gateway(defaults={"proxy": "m"})
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    answer = await one.request("POST", "/chat", json=asked, headers={"Accept": "text/event-stream"})
    assert (await OPENAI.heard(answer)).complete
    assert (await upstream.arrived()).asked["stream"] is True


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_what_comes_leaves_in_the_same_turn_of_the_loop(upstream, gateway, monkeypatch, streamed):
    """No task is woken between a provider's bytes and the client's, not even for the first of them."""
    reading, left = [], []

    def note(owner: object, name: str) -> None:
        does = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kw: (left.append((name, bool(reading))), does(*args, **kw))[1])

    hear = connection.Connection.data_received

    def hearing(self: connection.Connection, data: bytes) -> None:
        reading.append(self)
        try:
            hear(self, data)
        finally:
            reading.pop()

    monkeypatch.setattr(connection.Connection, "data_received", hearing)
    note(outlet.Outlet, "open")
    note(outlet.Outlet, "write")
    note(answers, "send_whole")
    gate = Gate()
    upstream.script = gated_stream(GOOD, gate) if streamed else whole(completion("a"))
    gate.open()
    answer = await (await gateway()).chat(stream=streamed)
    gate.open_all()
    assert answer.status == 200
    await answer.rest()
    assert set(left) == ({("open", True), ("write", True)} if streamed else {("send_whole", True)})
