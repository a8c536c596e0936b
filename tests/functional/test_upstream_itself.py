"""The fake provider and the raw client do what other tests rely on, without a gateway between them."""

from __future__ import annotations

import asyncio
import contextlib
import tomllib
import zlib

import pytest

from tests.functional import UPSTREAM_KEY, Gateway, config
from tests.functional.upstream import (
    DONE,
    JSON,
    Call,
    Gate,
    Upstream,
    big_head,
    blackhole,
    broken,
    chunk,
    completion,
    conversation,
    flood,
    gated_stream,
    held,
    hung_up,
    in_turn,
    ordinary,
    pieces,
    refusal,
    silent,
    sse,
    stale,
    stream,
    usage,
    whole,
)
from tests.functional.wire import Answer, Connection, Cut, Frame, connect, contents, request_bytes

CHAT = "/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
async def client(upstream: Upstream):
    async with await connect(upstream.port) as connection:
        yield connection


async def ask(client: Connection, **fields: object) -> Answer:
    return await client.ask("POST", CHAT, json={**ASKED, **fields})


# What is recorded


async def test_a_request_is_recorded_as_it_came(upstream: Upstream, client: Connection):
    headers = [("X-Twice", "1"), ("x-twice", "2"), ("AUTHORIZATION", "Bearer k")]
    await client.request("POST", f"{CHAT}?a=%2F", headers=headers, json=ASKED)
    call = await upstream.arrived()
    assert (call.method, call.path, call.query, call.number) == ("POST", CHAT, "a=%2F", 1)
    assert call.headers[1:4] == headers
    assert call.values("x-Twice") == ["1", "2"]
    assert call.asked == ASKED
    assert call.connection.number == 1
    await client.answer()


async def test_a_chunked_request_body_is_joined(upstream: Upstream, client: Connection):
    await client.drip(
        request_bytes("POST", CHAT, headers={"Transfer-Encoding": "chunked"}) + b'5\r\n{"a":\r\n2\r\n1}\r\n'
    )
    await client.send(b"0\r\n\r\n")
    assert (await upstream.arrived()).asked == {"a": 1}


async def test_connections_are_told_apart(upstream: Upstream, client: Connection):
    upstream.script = whole()
    for _ in range(2):
        await (await ask(client)).body()
    async with await connect(upstream.port) as other:
        await (await ask(other)).body()
    calls = [await upstream.arrived() for _ in range(3)]
    assert [(call.connection.number, call.reused) for call in calls] == [(1, False), (1, True), (2, False)]


async def test_an_early_script_runs_before_the_body_is_in(upstream: Upstream, client: Connection):
    upstream.early = True
    upstream.script = refusal(413)
    request = request_bytes("POST", CHAT, json=ASKED)
    await client.send(request[:-5])
    assert (await client.answer()).status == 413
    assert (await upstream.arrived()).body == b""


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"POST /v1 HTTP/1.1\nHost: a\r\n\r\n", id="bare-lf"),
        pytest.param(b"POST http://a/v1 HTTP/1.1\r\nHost: a\r\n\r\n", id="absolute-target"),
        pytest.param(b"POST /v1 HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", id="two-hosts"),
        pytest.param(b"POST /v1 HTTP/1.1\r\nHost : a\r\n\r\n", id="space-before-colon"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", id="two-lengths"
        ),
    ],
)
async def test_a_malformed_request_fails_the_test(wire: bytes):
    upstream = await Upstream().listen()
    async with await connect(upstream.port) as client:
        await client.send(wire)
        await client.closed()
    with pytest.raises(AssertionError, match="the gateway sent"):
        await upstream.stop()


async def test_a_script_that_fails_fails_the_test():
    async def script(call: Call) -> None:
        raise ValueError("wrong")

    upstream = await Upstream(script).listen()
    async with await connect(upstream.port) as client:
        await client.request("GET", "/")
        await client.closed()
    with pytest.raises(ValueError, match="wrong"):
        await upstream.stop()


# Answers that end well


async def test_the_ordinary_provider_answers_as_asked(upstream: Upstream, client: Connection):
    assert (await (await ask(client)).json())["choices"][0]["message"]["content"] == "Hello!"
    upstream.script = ordinary("Hello there")
    answer = await ask(client, stream=True, stream_options={"include_usage": True})
    frames = await answer.frames()
    assert contents(frames) == ["Hello ", "there"]
    assert frames[-2].json["usage"] == usage()
    assert frames[-1].done
    assert answer.whole
    assert (await client.ask("GET", "/v1/models")).status == 200


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
async def test_a_body_is_framed_and_encoded_as_its_head_says(upstream: Upstream, client: Connection, framing, encoding):
    frames = conversation("Hi", usage=usage())
    upstream.script = stream(frames, framing=framing, encoding=encoding)
    answer = await ask(client)
    raw = await answer.body()
    if encoding:
        assert answer.header("content-encoding") == encoding
        raw = zlib.decompress(raw, wbits=47)
    assert raw == b"".join(frame if isinstance(frame, bytes) else sse(frame) for frame in frames)
    assert bool(answer.header("transfer-encoding")) == (framing == "chunked")
    if framing == "close":
        assert await client.closed() == "cut"


async def test_each_encoded_piece_can_be_decoded_at_once(upstream: Upstream, client: Connection):
    gate = Gate()

    async def script(call: Call) -> None:
        await call.head(encoding="gzip")
        for frame in (b"data: 1\n\n", b"data: 2\n\n"):
            await call.frame(frame)
            await gate.passed()
        await call.done()

    upstream.script = script
    answer, decoder = await ask(client), zlib.decompressobj(wbits=31)
    for text in (b"data: 1\n\n", b"data: 2\n\n"):
        assert decoder.decompress(await answer.chunk() or b"") == text
        gate.open()
    await answer.body()


async def test_http_1_0_bodies_end_with_the_connection(upstream: Upstream, client: Connection):
    upstream.script = stream([DONE], version="HTTP/1.0")
    answer = await ask(client)
    assert (answer.version, answer.header("transfer-encoding")) == ("HTTP/1.0", None)
    assert await answer.body() == DONE


async def test_1xx_heads_come_before_the_real_one(upstream: Upstream, client: Connection):
    async def script(call: Call) -> None:
        await call.interim(100)
        await call.interim(103, {"Link": "</x>"})
        await call.reply({"ok": True})

    upstream.script = script
    answer = await ask(client)
    assert answer.interim == [100, 103]
    assert await answer.json() == {"ok": True}


async def test_blank_lines_and_big_heads_are_sent_as_asked(upstream: Upstream, client: Connection):
    upstream.script = in_turn(whole(prefix=b"\n\n"), big_head(70_000))
    assert (await (await ask(client)).body()).startswith(b"\n\n{")
    answer = await ask(client)
    assert len(answer.header("x-big") or "") == 70_000


async def test_scripts_take_turns_and_the_last_one_stays(upstream: Upstream, client: Connection):
    upstream.script = in_turn(refusal(500, "first"), refusal(429, "then", {"Retry-After": "1"}))
    answers = [await ask(client) for _ in range(1)]
    assert (await answers[0].json())["error"]["message"] == "first"
    for _ in range(2):
        answer = await ask(client)
        assert (answer.status, answer.header("retry-after")) == (429, "1")
        await answer.body()


async def test_trailers_are_told(upstream: Upstream, client: Connection):
    async def script(call: Call) -> None:
        await call.frame(DONE)
        await call.done({"X-Sum": "1"})

    upstream.script = script
    answer = await ask(client)
    assert [frame.raw for frame in await answer.frames()] == [DONE]
    assert answer.trailers == [("X-Sum", "1")]


# Order


async def test_a_gate_holds_each_frame_until_it_is_opened(upstream: Upstream, client: Connection):
    gate = Gate()
    upstream.script = gated_stream([chunk("a"), chunk("b"), DONE], gate)
    answer = await ask(client)
    for number, content in enumerate(["a", "b"], start=1):
        await gate.waited_at(number)
        gate.open()
        frame = await answer.frame()
        assert frame is not None
        assert frame.content == content
    gate.open_all()
    assert [frame.raw for frame in await answer.frames()] == [DONE]
    assert gate.reached == 4  # one before the end, too


async def test_events_can_be_gates(upstream: Upstream, client: Connection):
    second = asyncio.Event()
    upstream.script = gated_stream([chunk("a"), chunk("b")], [None, second])
    answer = await ask(client)
    assert await answer.frame()
    second.set()
    assert contents(await answer.frames()) == ["b"]


async def test_a_body_can_be_cut_inside_a_character(upstream: Upstream, client: Connection):
    raw = sse(chunk("é"))
    at = raw.index("é".encode()) + 1
    upstream.script = pieces([raw[:at], raw[at:]])
    answer = await ask(client)
    assert [piece async for piece in answer.chunks()] == [raw[:at], raw[at:]]


# Answers that end badly


@pytest.mark.parametrize(("how", "outcome"), [("close", "cut"), ("half_close", "cut"), ("reset", "reset")])
async def test_a_broken_stream_is_told_from_a_whole_one(upstream: Upstream, client: Connection, how, outcome):
    upstream.script = broken([chunk("a")], how)
    answer = await ask(client)
    assert contents([frame for frame in [await answer.frame()] if frame]) == ["a"]
    assert await answer.frame() is None
    assert answer.outcome == outcome
    with pytest.raises(Cut):
        await answer.body()


async def test_a_chunk_can_be_torn(upstream: Upstream, client: Connection):
    async def script(call: Call) -> None:
        await call.head()
        await call.torn(b"data: {")

    upstream.script = script
    answer = await ask(client)
    assert await answer.rest() == b"data: {"
    assert answer.outcome == "cut"


async def test_a_content_length_can_lie(upstream: Upstream, client: Connection):
    async def script(call: Call) -> None:
        await call.head(headers=JSON, length=10)
        await call.send(b"{}")

    upstream.script = script
    answer = await ask(client)
    assert await answer.rest() == b"{}"
    assert answer.outcome == "cut"


@pytest.mark.parametrize(("how", "end"), [("close", "cut"), ("reset", "reset")])
async def test_a_request_can_be_left_without_a_byte(upstream: Upstream, client: Connection, how, end):
    upstream.script = hung_up(how)
    await client.request("POST", CHAT, json=ASKED)
    assert await client.closed() == end
    assert not client.buffer


async def test_a_used_connection_can_be_stale(upstream: Upstream, client: Connection):
    upstream.script = stale(whole(), "reset")
    await (await ask(client)).body()
    await client.request("POST", CHAT, json=ASKED)
    assert await client.closed() == "reset"


async def test_idle_connections_are_closed_and_busy_ones_are_not(upstream: Upstream, client: Connection):
    upstream.script = in_turn(whole(), held([DONE]))
    await (await ask(client)).body()
    async with await connect(upstream.port) as busy:
        answer = await ask(busy)
        assert await answer.frame()

        async def leave() -> None:
            await client.closed()
            client.close()

        closing = asyncio.create_task(leave())
        assert await upstream.close_idle() == 1
        await closing
        assert len(upstream.open) == 1


async def test_refused_connections_are_refused_and_then_taken_again(upstream: Upstream):
    upstream.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(upstream.port)
    await upstream.listen()
    async with await connect(upstream.port) as client:
        assert (await ask(client)).status == 200


async def test_nobody_answers_in_a_black_hole():
    async with blackhole() as port:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connect(port), 0.1)


# What the other side does


@pytest.mark.parametrize("leave", [Connection.close, Connection.abort, Connection.half_close])
@pytest.mark.parametrize("script", [silent(), held([chunk("a")])], ids=["silent", "held"])
async def test_a_call_knows_when_its_client_has_left(upstream: Upstream, client: Connection, leave, script):
    upstream.script = script
    await client.request("POST", CHAT, json=ASKED)
    call = await upstream.arrived()
    assert not call.left
    leave(client)
    await call.gone()
    await call.ended()
    await upstream.quiet()


async def test_a_script_ends_quietly_when_it_writes_to_nobody(upstream: Upstream, client: Connection):
    gate = Gate()
    upstream.script = gated_stream(conversation("a"), gate)
    await client.request("POST", CHAT, json=ASKED)
    call = await upstream.arrived()
    client.abort()
    await call.gone()
    gate.open_all()
    await call.ended()


async def test_a_client_that_does_not_read_stops_a_flood(upstream: Upstream):
    frame = sse(chunk("x" * 65_000))
    upstream.script = flood(frame, 300)
    async with await connect(upstream.port, receive_buffer=8192) as client:
        answer = await ask(client)
        call = await upstream.arrived()
        accepted = await call.settled()
        assert accepted < 12 * 2**20
        assert not call.over.is_set()
        frames = await answer.frames()
        assert len(frames) == 301
        assert answer.whole
    assert call.accepted == call.sent > 300 * len(frame)


# The client's view of a stream


@pytest.mark.parametrize(
    ("wire", "frames"),
    [
        pytest.param([b"data: a\n\n"], [(b"a", b"data: a\n\n")], id="lf"),
        pytest.param([b"data: a\r\n\r\n"], [(b"a", b"data: a\r\n\r\n")], id="crlf"),
        pytest.param([b"data: a\r\rdata: b\r\r"], [(b"a", b"data: a\r\r"), (b"b", b"data: b\r\r")], id="cr"),
        pytest.param(
            [b"data: a\r\n\r", b"\ndata: b\n\n"], [(b"a", b"data: a\r\n\r"), (b"b", b"data: b\n\n")], id="cut-crlf"
        ),
        pytest.param(
            [b": hi\n\n", b"data:a\ndata: b\n\n"], [(None, b": hi\n\n"), (b"a\nb", b"data:a\ndata: b\n\n")], id="mixed"
        ),
        pytest.param([b"data: a"], [], id="unfinished"),
    ],
)
async def test_frames_are_told_with_their_bytes(upstream: Upstream, client: Connection, wire, frames):
    upstream.script = pieces(wire)
    answer = await ask(client)
    assert [(frame.data, frame.raw) for frame in await answer.frames()] == frames
    assert answer.unfinished == (b"" if frames else b"data: a")


def test_a_frame_knows_its_event_and_whether_it_is_only_a_comment():
    assert Frame.parse(sse({"a": 1}, event="ping")).event == "ping"
    assert Frame.parse(b": keep-alive\n\n").comment
    assert not Frame.parse(sse("[DONE]")).comment
    assert Frame.parse(sse("[DONE]", end="\r\n")).done


def test_ready_made_objects_are_what_openai_sends():
    assert chunk(usage=usage())["choices"] == []
    assert chunk(finish="stop", usage=usage())["choices"][0]["finish_reason"] == "stop"
    assert chunk(delta={"reasoning_content": "hm"})["choices"][0]["delta"] == {"reasoning_content": "hm"}
    assert completion(system_fingerprint="fp")["system_fingerprint"] == "fp"


# The gateway between them


async def test_the_gateway_is_started_before_the_upstream(gateway, upstream: Upstream):
    served = await gateway()
    answer = await served.chat(stream=True)
    assert contents(await answer.frames()) == ["Hello!"]
    assert answer.whole
    assert (await upstream.arrived()).header("authorization") == f"Bearer {UPSTREAM_KEY}"


async def test_a_task_that_outlives_its_gateway_fails_the_test(upstream: Upstream, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.functional.LAST_TURNS", 0.01)
    served = await Gateway.start(tmp_path, upstream.url)
    task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
    with pytest.raises(AssertionError, match="forgotten"):
        await served.close()
    task.cancel()


async def test_a_complaint_of_the_event_loop_fails_the_test(upstream: Upstream, tmp_path):
    served = await Gateway.start(tmp_path, upstream.url)
    asyncio.get_running_loop().call_exception_handler({"message": "never retrieved"})
    with pytest.raises(AssertionError, match="never retrieved"):
        await served.close()


# The configuration


def test_a_configuration_is_changed_table_by_table():
    text = config(
        "http://up",
        '[timeouts]\nidle = 1\n[[models]]\nid = "m"\naliases = ["n"]\n[[models]]\nid = "o"\nprovider = "up"',
        timeouts={"first_byte": 2},
        providers=[{"name": "up", "headers": {"X-A": "b"}}],
        keys=[],
    )
    told = tomllib.loads(text)
    assert told["timeouts"] == {"idle": 1, "first_byte": 2}
    assert told["models"] == [{"id": "m", "provider": "up", "aliases": ["n"]}, {"id": "o", "provider": "up"}]
    assert told["providers"][0]["base_url"] == "http://up"
    assert told["providers"][0]["headers"] == {"X-A": "b"}
    assert not told.get("keys")


def test_deployments_stand_in_place_of_the_shorthand():
    told = tomllib.loads(config("http://up", models=[{"id": "m", "deployments": [{"provider": "up"}]}]))
    assert told["models"] == [{"id": "m", "deployments": [{"provider": "up"}]}]


def test_waiting_in_vain_says_for_what(monkeypatch):
    monkeypatch.setattr("tests.functional.wire.PATIENCE", 0.01)

    async def wait() -> None:
        async with Upstream() as upstream:
            await upstream.arrived()

    with contextlib.closing(asyncio.new_event_loop()) as loop, pytest.raises(AssertionError, match="request 1 at the"):
        loop.run_until_complete(wait())
