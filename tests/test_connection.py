"""What we lean on in aiohttp's inside, on real sockets: an update that changes it fails here, and says what."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from proxy.connection import MANNERS, Connection, Outlet
from proxy.serving import Runner
from proxy.settings import Settings

from .functional import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp.web_request import BaseRequest

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Manners:
    """As the gateway has them, in short."""

    patience = 30.0

    def answer_malformed(self, request: BaseRequest, status: int) -> web.Response:
        return web.Response(text="malformed", status=status, headers={"x-request-id": "req_1"})


class Bench:
    """An application of one handler, and who connects to it."""

    def __init__(self) -> None:
        self.handler: Handler = lambda _: asyncio.sleep(0, web.Response(text="ok"))
        self.port = 0
        self.runner: Runner
        #: What was written to the transport of the latest request, write by write.
        self.writes: list[bytes] = []
        self.clients: list[wire.Connection] = []

    @property
    def connections(self) -> list[Connection]:
        assert self.runner.server is not None
        return [one for one in self.runner.server.connections if isinstance(one, Connection)]

    def sweep(self) -> None:
        """Look for late clients, as the server does every second."""
        self.runner.server._close_late()

    async def connect(self, *, receive_buffer: int | None = None) -> wire.Connection:
        self.clients.append(await wire.connect(self.port, receive_buffer=receive_buffer))
        return self.clients[-1]

    async def ask(self, handler: Handler, request: bytes = HEAD) -> wire.Answer:
        self.handler = handler
        client = await self.connect()
        await client.send(request)
        return await client.answer()

    def spied(self, request: web.Request) -> None:
        """From now on ``writes`` tells what goes to this client."""
        self.writes = []
        request.protocol.transport = Spy(request.transport, self.writes)


class Spy:
    """A transport that remembers what it was given."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await bench.handler(request)

    bench, app, sock = Bench(), web.Application(), wire.listener()
    app[MANNERS] = Manners()
    app.router.add_route("*", "/", handle)
    bench.runner, bench.port = Runner(app, Settings()), sock.getsockname()[1]
    await bench.runner.setup()
    listener = await asyncio.get_running_loop().create_server(bench.runner.server, sock=sock)
    yield bench
    for client in bench.clients:
        client.close()
    listener.close()
    await bench.runner.cleanup()


# The outlet: one write for the head and the first frames, one for each run of frames, one for the end


versions = pytest.mark.parametrize("request_head", [HEAD, HEAD.replace(b"1.1", b"1.0")], ids=["http-1-1", "http-1-0"])


def framed(data: bytes, request_head: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if b"1.1" in request_head else data


@versions
async def test_the_head_and_the_first_frames_leave_in_one_write(bench, request_head):
    async def handle(request: web.Request) -> web.StreamResponse:
        bench.spied(request)
        outlet, response = Outlet(request), web.StreamResponse(headers={"X-A": "1"})
        await outlet.open(response, b"data: a\n\n")
        outlet.write(b"data: b\n\n")
        outlet.finish()
        outlet.finish()
        return response

    answer = await bench.ask(handle, request_head)
    assert (answer.status, answer.header("X-A")) == (200, "1")
    assert await answer.body() == b"data: a\n\ndata: b\n\n"
    head, _, first = bench.writes[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.")
    end = [b"0\r\n\r\n"] if b"1.1" in request_head else []
    assert [first, *bench.writes[1:]] == [
        framed(b"data: a\n\n", request_head),
        framed(b"data: b\n\n", request_head),
        *end,
    ]


@versions
async def test_the_last_frames_and_the_end_leave_in_one_write(bench, request_head):
    async def handle(request: web.Request) -> web.StreamResponse:
        bench.spied(request)
        outlet, response = Outlet(request), web.StreamResponse()
        await outlet.open(response, b"data: a\n\n")
        outlet.write(b"data: b\n\n", last=True)
        outlet.write(b"data: too late\n\n")
        outlet.finish()
        return response

    answer = await bench.ask(handle, request_head)
    assert await answer.body() == b"data: a\n\ndata: b\n\n"
    end = b"0\r\n\r\n" if b"1.1" in request_head else b""
    assert bench.writes[1:] == [framed(b"data: b\n\n", request_head) + end]


@versions
@pytest.mark.parametrize("first", [b"data: a\n\n", b""], ids=["frames", "nothing"])
async def test_a_whole_stream_leaves_in_one_write(bench, request_head, first):
    async def handle(request: web.Request) -> web.StreamResponse:
        bench.spied(request)
        outlet, response = Outlet(request), web.StreamResponse()
        await outlet.open(response, first, last=True)
        outlet.finish()
        return response

    answer = await bench.ask(handle, request_head)
    assert await answer.body() == first
    assert len(bench.writes) == 1


async def test_a_head_alone_leaves_at_once(bench):
    """Keep-alives begin before the first frame."""
    gate = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        outlet, response = Outlet(request), web.StreamResponse()
        await outlet.open(response, b"")
        await gate.wait()
        outlet.finish()
        return response

    answer = await bench.ask(handle)  # the head is in, and the gate is shut
    assert answer.status == 200
    gate.set()
    assert await answer.body() == b""


async def test_a_connection_goes_on_after_each_way_to_end_a_stream(bench):
    async def handle(request: web.Request) -> web.StreamResponse:
        outlet, response = Outlet(request), web.StreamResponse()
        way = request.headers["X-Way"]
        await outlet.open(response, b"a", last=way == "open")
        if way == "write":
            outlet.write(b"b", last=True)
        outlet.finish()
        return response

    bench.handler = handle
    client = await bench.connect()
    for way, body in (("open", b"a"), ("write", b"ab"), ("finish", b"a"), ("open", b"a")):
        answer = await client.ask("GET", "/", headers={"X-Way": way})
        assert await answer.body() == body


async def test_nothing_is_written_to_a_client_that_has_left(bench):
    left, done = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        outlet, response = Outlet(request), web.StreamResponse()
        await outlet.open(response, b"a")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # handler_cancellation: the client's leaving ends the handler
            left.set()
            outlet.write(b"b")
            outlet.write(b"c", last=True)
            outlet.finish()
            outlet.cut()
            done.set()
            raise
        return response

    answer = await bench.ask(handle)
    assert await answer.chunk() == b"a"
    answer.connection.close()
    await wire.within(left.wait(), "the handler's end")
    await wire.within(done.wait(), "words to nobody")


async def test_a_cut_is_no_end(bench):
    async def handle(request: web.Request) -> web.StreamResponse:
        outlet, response = Outlet(request), web.StreamResponse()
        await outlet.open(response, b"a")
        outlet.cut()
        outlet.finish()
        return response

    answer = await bench.ask(handle)
    await answer.rest()
    assert answer.outcome in {"cut", "reset"}


async def test_a_full_client_is_known_and_its_catching_up_is_told(bench):
    told, full = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        outlet, response = Outlet(request), web.StreamResponse()
        await outlet.open(response, b"a")
        assert not outlet.full
        outlet.on_writable(told.set)
        while not outlet.full:
            outlet.write(b"x" * 65536)
            await asyncio.sleep(0)
        full.set()
        await told.wait()
        assert not outlet.full
        outlet.on_writable(None)
        outlet.finish()
        return response

    bench.handler = handle
    client = await bench.connect(receive_buffer=4096)
    answer = await client.ask("GET", "/")
    await wire.within(full.wait(), "a full client")
    assert not told.is_set()
    assert set(await answer.body()) == set(b"ax")


# Late clients


def long_ago(connection: Connection) -> None:
    connection.waiting_since -= 100


async def opened(bench: Bench, *words: bytes) -> tuple[wire.Connection, Connection]:
    """A client that has said these words, and the server's side of it, which has read them."""
    before = bench.connections
    client = await bench.connect()
    await wire.within(until(lambda: len(bench.connections) > len(before)), "a connection")
    (connection,) = (one for one in bench.connections if one not in before)
    connection.waiting_since = 0.0
    for word in words:
        await client.send(word)
    if words:
        await wire.within(until(lambda: connection.waiting_since or connection._request_in_progress), "its words")
    return client, connection


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_the_clock_of_a_request_head_runs_from_the_connection_s_begin(bench):
    client = await bench.connect()
    await wire.within(until(lambda: bench.connections), "a connection")
    (connection,) = bench.connections
    assert connection.waiting_since > 0
    bench.sweep()
    assert connection.connected  # not late yet
    long_ago(connection)
    bench.sweep()
    assert await client.closed() in {"cut", "reset"}


async def test_half_a_head_keeps_the_clock_running_however_it_drips(bench):
    client, connection = await opened(bench, b"GET / HT")
    since = connection.waiting_since
    await client.send(b"TP/1.1\r\nHo")
    await asyncio.sleep(0.01)
    assert connection.waiting_since == since > 0
    long_ago(connection)
    bench.sweep()
    assert await client.closed() in {"cut", "reset"}


async def test_there_is_no_clock_between_two_requests(bench):
    client, connection = await opened(bench)
    for _ in range(2):
        await client.send(HEAD)
        assert await (await client.answer()).body() == b"ok"
        assert connection.waiting_since == 0
        bench.sweep()
    assert connection.connected
    client.close()


async def test_there_is_no_clock_while_a_request_is_answered(bench):
    gate = asyncio.Event()

    async def handle(_: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response(text="late")

    bench.handler = handle
    client, connection = await opened(bench, HEAD)
    assert connection.waiting_since == 0
    bench.sweep()
    gate.set()
    assert await (await client.answer()).body() == b"late"
    client.close()


# Clients that do not read


class Buffer:
    """A transport of which only the buffer matters."""

    def __init__(self) -> None:
        self.size = 100_000
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        pass


async def test_whether_a_client_reads_is_seen_at_its_buffer(bench):
    _, connection = await opened(bench)
    real, connection.transport = connection.transport, Buffer()
    try:
        now = asyncio.get_running_loop().time()
        assert not connection.stalled(now + 100, 10)  # nothing waits for it
        connection.pause_writing()
        assert not connection.stalled(now + 100, 10)  # a first look cannot know
        assert connection.stalled(now + 100, 10)
        connection.transport.size -= 1
        assert not connection.stalled(now + 101, 10)  # it has read
        assert not connection.stalled(now + 110, 10)
        assert connection.stalled(now + 112, 10)
        connection.resume_writing()
        assert not connection.stalled(now + 200, 10)
    finally:
        connection.transport = real


@pytest.mark.parametrize("streams", [False, True])
async def test_the_sweep_drops_those_that_do_not_read_but_leaves_streams_to_themselves(bench, monkeypatch, streams):
    _, connection = await opened(bench)
    real, connection.transport = connection.transport, Buffer()
    try:
        monkeypatch.setattr(Manners, "patience", -1.0)
        connection.waiting_since = 0.0
        connection.pause_writing()
        connection.writable = (lambda: None) if streams else None
        bench.sweep()
        bench.sweep()
        assert connection.transport.aborted is not streams
    finally:
        connection.transport = real


# What is not HTTP, and what fails outside of every middleware


async def test_our_words_answer_what_is_not_http(bench, caplog):
    client = await bench.connect()
    await client.send(b"GET / HTTP/1.1\r\nAuthorization: Bearer sk-secret\r\nsk-secret\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, await answer.body()) == (400, b"malformed")
    await client.closed()
    assert "sk-secret" not in caplog.text


async def test_a_handler_s_exception_is_told_without_what_it_says(bench, caplog):
    async def handle(_: web.Request) -> web.StreamResponse:
        raise RuntimeError("the answer")

    answer = await bench.ask(handle)
    assert (answer.status, await answer.body()) == (500, b"malformed")
    assert "req_1" in caplog.text
    assert "the answer" not in caplog.records[-1].getMessage()
