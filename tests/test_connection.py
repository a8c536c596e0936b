"""What we lean on in aiohttp's inside, on real sockets: an update that changes it fails here, and says what."""

from __future__ import annotations

import asyncio
import contextlib
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from proxy.connection import FIRST, MANNERS, Connection
from proxy.outlet import Outlet, send_whole
from proxy.plain import Plain
from proxy.serving import Runner
from proxy.settings import Settings, Timeouts

from .functional import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from aiohttp.web_request import BaseRequest

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


class Manners:
    """As the gateway has them, in short."""

    patience = 30.0

    def answer_malformed(self, request: BaseRequest, status: int) -> web.Response:
        return web.Response(text="malformed", status=status, headers={"x-request-id": "req_1"})


class Visit:
    """What serves a plain request, as a coroutine."""

    def __init__(self, serving: Coroutine[Any, Any, web.StreamResponse]) -> None:
        self._serving = serving

    def begin(self, done: Callable[[web.StreamResponse | None], None]) -> None:
        self._task = asyncio.create_task(self._serve(done))

    async def _serve(self, done: Callable[[web.StreamResponse | None], None]) -> None:
        answer = None
        try:
            answer = await self._serving
        finally:
            done(answer)

    def leave(self) -> None:
        self._task.cancel()


class Bench:
    """An application of one handler, and who connects to it."""

    def __init__(self) -> None:
        self.handler: Handler = lambda _: asyncio.sleep(0, web.Response(text="ok"))
        #: Serves plain requests, before the application is asked; None leaves them all to it.
        self.lane: Callable[[Plain], Coroutine[Any, Any, web.StreamResponse]] | None = None
        #: What came before the application did, each by its class.
        self.seen: list[type] = []
        self.port = 0
        self.runner: Runner
        #: What was written to the transport of the latest request, write by write.
        self.writes: list[bytes] = []
        self.clients: list[wire.Connection] = []

    edition = None

    def take(self, request: web.Request | Plain) -> Visit | None:
        self.seen.append(type(request))
        return Visit(self.lane(request)) if self.lane is not None and isinstance(request, Plain) else None

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
    app[MANNERS], app[FIRST] = Manners(), bench
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
        outlet = Outlet(request)
        response = outlet.open("X-A: 1\r\n", b"data: a\n\n")
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
        outlet = Outlet(request)
        response = outlet.open("", b"data: a\n\n")
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
        outlet = Outlet(request)
        response = outlet.open("", first, last=True)
        outlet.finish()
        return response

    answer = await bench.ask(handle, request_head)
    assert await answer.body() == first
    assert len(bench.writes) == 1


async def test_a_head_alone_leaves_at_once(bench):
    """Keep-alives begin before the first frame."""
    gate = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        outlet = Outlet(request)
        response = outlet.open("", b"")
        await gate.wait()
        outlet.finish()
        return response

    answer = await bench.ask(handle)  # the head is in, and the gate is shut
    assert answer.status == 200
    gate.set()
    assert await answer.body() == b""


async def test_a_connection_goes_on_after_each_way_to_end_a_stream(bench):
    async def handle(request: web.Request) -> web.StreamResponse:
        outlet = Outlet(request)
        way = request.headers["X-Way"]
        response = outlet.open("", b"a", last=way == "open")
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
        outlet = Outlet(request)
        response = outlet.open("", b"a")
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
        outlet = Outlet(request)
        response = outlet.open("", b"a")
        outlet.cut()
        outlet.finish()
        return response

    answer = await bench.ask(handle)
    await answer.rest()
    assert answer.outcome in {"cut", "reset"}


async def test_a_full_client_is_known_and_its_catching_up_is_told(bench):
    told, full = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        outlet = Outlet(request)
        response = outlet.open("", b"a")
        assert not outlet.full
        outlet.on_writable(told.set)
        while not outlet.write(b"x" * 65536):
            assert not outlet.full
            await asyncio.sleep(0)
        assert outlet.full
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


# Heads: ours say what aiohttp's would


@pytest.mark.parametrize(
    ("request_head", "close", "told"),
    [
        pytest.param(HEAD, False, None, id="http-1-1"),
        pytest.param(HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False, "close", id="asked-to-close"),
        pytest.param(HEAD, True, "close", id="we-close"),
        pytest.param(HEAD.replace(b"1.1", b"1.0"), False, None, id="http-1-0"),
        pytest.param(
            HEAD.replace(b"1.1", b"1.0").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"),
            False,
            "keep-alive",
            id="http-1-0-asked-to-stay",
        ),
    ],
)
async def test_a_head_says_how_long_the_body_is_and_whether_the_connection_stays(bench, request_head, close, told):
    async def handle(request: web.Request) -> web.StreamResponse:
        return send_whole(request, 200, "X-A: 1\r\n", b"a", close=close)

    answer = await bench.ask(handle, request_head)
    new = b"1.1" in request_head
    assert (answer.status, answer.reason, answer.version) == (200, "OK", "HTTP/1.1" if new else "HTTP/1.0")
    assert answer.values("Content-Length") == ["1"]
    assert answer.values("Connection") == ([told] if told else [])
    assert parsedate_to_datetime(answer.header("Date"))
    assert answer.header("X-A") == "1"
    assert await answer.body() == b"a"
    if (new and not told) or told == "keep-alive":
        await bench.clients[0].send(request_head)
        assert await (await bench.clients[0].answer()).body() == b"a"
    else:
        assert await bench.clients[0].closed() == "cut"


@versions
@pytest.mark.parametrize("asked", ["close", "keep-alive"])
async def test_a_stream_without_chunks_ends_with_its_connection(bench, request_head, asked):
    async def handle(request: web.Request) -> web.StreamResponse:
        return Outlet(request).open("", b"a", last=True)

    new = b"1.1" in request_head
    answer = await bench.ask(handle, request_head[:-2] + f"Connection: {asked}\r\n\r\n".encode())
    assert answer.values("Transfer-Encoding") == (["chunked"] if new else [])
    assert answer.values("Content-Length") == []
    assert answer.values("Connection") == (["close"] if new and asked == "close" else [])
    assert await answer.body() == b"a"
    if new and asked == "keep-alive":
        await bench.clients[0].send(request_head)
        assert await (await bench.clients[0].answer()).body() == b"a"
    else:
        assert await bench.clients[0].closed() == "cut"


@pytest.mark.parametrize("status", [one for one in HTTPStatus if one >= 200 and one not in {204, 205, 304}])
async def test_every_status_has_its_words(bench, status):
    async def handle(request: web.Request) -> web.StreamResponse:
        return send_whole(request, status, "", b"a")

    answer = await bench.ask(handle)
    assert (answer.status, answer.reason) == (status, status.phrase)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 5_000_000])
async def test_a_whole_answer_arrives_whole(bench, size):
    async def handle(request: web.Request) -> web.StreamResponse:
        return send_whole(request, 200, "", b"x" * size)

    answer = await bench.ask(handle)
    assert await answer.body() == b"x" * size


async def test_a_whole_answer_to_nobody_is_none(bench):
    done = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        request.transport.abort()
        send_whole(request, 200, "", b"a")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        done.set()
        return send_whole(request, 200, "", b"a")

    bench.handler = handle
    client = await bench.connect()
    await client.send(HEAD)
    assert await client.closed() in {"cut", "reset"}
    assert not client.buffer
    await wire.within(done.wait(), "the handler's end")


# Plain requests, past aiohttp


async def echo(request: Plain) -> web.StreamResponse:
    return send_whole(request, 200, "X-Lane: 1\r\n", request.body)


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_a_plain_request_is_served_before_the_application(bench):
    bench.lane = echo
    client = await bench.connect()
    await client.send(post(b"hello"))
    answer = await client.answer()
    assert (answer.header("X-Lane"), await answer.body()) == ("1", b"hello")
    assert bench.seen == [Plain]


async def test_what_nobody_takes_is_the_application_s(bench):
    client = await bench.connect()
    for request in (POST, HEAD):
        await client.send(request)
        assert await (await client.answer()).body() == b"ok"
    assert bench.seen == [Plain, web.Request, web.Request]


async def test_a_connection_carries_both_kinds_in_turn(bench):
    bench.lane = echo
    client = await bench.connect()
    for request, body in ((POST, b"{}"), (HEAD, b"ok"), (POST, b"{}"), (POST, b"{}"), (HEAD, b"ok"), (POST, b"{}")):
        await client.send(request)
        assert await (await client.answer()).body() == body
    assert len(bench.connections) == 1


@pytest.mark.parametrize(
    ("later", "bodies"),
    [
        pytest.param([post(b"b")], [b"b"], id="a-plain-one"),
        pytest.param([HEAD], [b"ok"], id="another-one"),
        pytest.param([HEAD[:9], HEAD[9:]], [b"ok"], id="one-in-pieces"),
        pytest.param([post(b"b"), post(b"c")], [b"ok", b"ok"], id="several"),  # together they are not plain
        pytest.param([post(b"x" * 300_000)], [b"x" * 300_000], id="a-large-one"),
    ],
)
async def test_what_comes_while_a_plain_request_is_served_waits_its_turn(bench, later, bodies):
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(request: Plain) -> web.StreamResponse:
        begun.set()
        await gate.wait()
        return await echo(request)

    async def handle(request: web.Request) -> web.StreamResponse:
        assert gate.is_set()
        return web.Response(body=(await request.read() if len(bodies) == 1 else b"") or b"ok")

    bench.lane, bench.handler = slow, handle
    client = await bench.connect()
    await client.send(post(b"a"))
    await wire.within(begun.wait(), "a first request")
    (connection,) = bench.connections
    sending = asyncio.ensure_future(send_each(client, later))
    await wire.within(until(lambda: sending.done() or len(connection._later) > 65536), "what comes later")
    await asyncio.sleep(0.01)
    assert client.buffer == b""
    gate.set()
    for body in (b"a", *bodies):
        assert await (await client.answer()).body() == body
    await sending


async def send_each(client: wire.Connection, pieces: list[bytes]) -> None:
    for piece in pieces:
        await client.send(piece)


async def test_no_more_than_a_little_is_read_while_a_plain_request_is_served(bench):
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(request: Plain) -> web.StreamResponse:
        begun.set()
        await gate.wait()
        return await echo(request)

    bench.lane = slow
    bench.handler = lambda request: request.read().__await__() and None
    client = await bench.connect()
    await client.send(POST)
    await wire.within(begun.wait(), "a first request")
    (connection,) = bench.connections
    flood = asyncio.ensure_future(client.send(post(b"x" * 50_000_000)))
    await wire.within(until(lambda: not connection.transport.is_reading()), "an end of reading")
    kept = len(connection._later)
    await asyncio.sleep(0.05)
    assert len(connection._later) == kept < 1_000_000
    assert not flood.done()
    flood.cancel()


HIDDEN = post(b"hidden")


@pytest.mark.parametrize(
    ("reads", "bodies"),
    [
        pytest.param([post(b"x" * len(HIDDEN))[: -len(HIDDEN)], HIDDEN], [HIDDEN], id="a-body"),
        pytest.param(
            [post(b"x" * 2 * len(HIDDEN))[: -len(HIDDEN)], HIDDEN], [b"x" * len(HIDDEN) + HIDDEN], id="its-end"
        ),
        pytest.param(
            [
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(HIDDEN),
                HIDDEN,
                b"\r\n0\r\n\r\n",
            ],
            [HIDDEN],
            id="a-chunk",
        ),
        pytest.param([b"POST / HTTP/1.1\r\nX-A: ", HIDDEN], [b"hidden"], id="a-header-s-value"),
        pytest.param([HEAD + b"POST / HTTP/1.1\r\nX-A: ", HIDDEN], [b"", b"hidden"], id="behind-a-request"),
        pytest.param([POST + b"POST / HTTP/1.1\r\nX-A: ", HIDDEN], [b"{}", b"hidden"], id="behind-one-with-a-body"),
        pytest.param(
            [post(b"abc")[:-1], b"cPOST / HTTP/1.1\r\nX-A: ", HIDDEN], [b"abc", b"hidden"], id="behind-a-body-s-end"
        ),
        pytest.param(
            [
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"0\r\n\r\nPOST / HTTP/1.1\r\nX-A: ",
                HIDDEN,
            ],
            [b"", b"hidden"],
            id="behind-a-last-chunk",
        ),
    ],
)
async def test_a_read_that_looks_like_a_request_and_is_none_is_none(bench, reads, bodies):
    """Else what one client says inside a body would be asked in another's name, behind a server that joins them."""
    read = []

    async def handle(request: web.Request) -> web.StreamResponse:
        read.append(await request.read())
        return web.Response(text="ok")

    bench.lane, bench.handler = echo, handle
    client = await bench.connect()
    for piece in reads[:-1]:
        await client.send(piece)
        await asyncio.sleep(0.02)  # so that they are reads of their own
    await client.send(reads[-1])
    for _ in bodies:
        answer = await client.answer()
        assert (answer.header("X-Lane"), await answer.body()) == (None, b"ok")
    assert read == bodies


async def test_a_body_that_its_handler_does_not_read_is_no_request_either(bench):
    bench.lane = echo
    client = await bench.connect()
    await client.send(post(b"x" * len(HIDDEN))[: -len(HIDDEN)])
    assert await (await client.answer()).body() == b"ok"
    await client.send(HIDDEN)
    await client.send(post(b"more"))
    assert await (await client.answer()).body() in {b"more", b"ok"}
    await client.send(HEAD)
    assert await (await client.answer()).body() == b"ok"


async def test_a_client_that_leaves_ends_what_serves_it(bench):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(_: Plain) -> web.StreamResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    bench.lane = slow
    client = await bench.connect()
    await client.send(POST)
    await wire.within(begun.wait(), "a first request")
    client.close()
    await wire.within(cancelled.wait(), "the end of what serves it")


async def test_what_has_no_answer_ends_the_connection(bench):
    async def fails(_: Plain) -> None:
        return None

    bench.lane = fails
    client = await bench.connect()
    await client.send(POST)
    assert await client.closed() == "cut"


async def test_an_answer_that_closes_ends_the_connection(bench):
    async def last(request: Plain) -> web.StreamResponse:
        return send_whole(request, 503, "", b"bye", close=True)

    bench.lane = last
    client = await bench.connect()
    await client.send(POST)
    answer = await client.answer()
    assert (answer.header("Connection"), await answer.body()) == ("close", b"bye")
    assert await client.closed() == "cut"


async def test_a_slow_client_s_next_request_waits_for_its_answer(bench):
    async def large(request: Plain) -> web.StreamResponse:
        return send_whole(request, 200, "", request.body * 4_000_000)

    bench.lane = large
    client = await bench.connect(receive_buffer=4096)
    await client.send(POST)
    await wire.within(until(lambda: bench.connections), "a connection")
    (connection,) = bench.connections
    await wire.within(until(lambda: connection.writing_paused), "a full client")
    await client.send(POST)
    await wire.within(until(lambda: connection._later), "the next request")
    for _ in range(2):
        assert len(await (await client.answer()).body()) == 8_000_000


@pytest.mark.parametrize("idle", [0, 0.02])
@pytest.mark.parametrize("before", [[], [HEAD]], ids=["plain-only", "after-another"])
async def test_an_idle_connection_is_closed_after_plain_requests_too(bench, idle, before):
    bench.runner.retune(Settings(timeouts=Timeouts(keepalive_idle=0.02)))
    bench.lane = echo
    client = await bench.connect()
    await wire.within(until(lambda: bench.connections), "a connection")
    (connection,) = bench.connections
    connection._keepalive_timeout = 60.0
    for request in before:
        await client.send(request)
        assert await (await client.answer()).body() == b"ok"
    connection._keepalive_timeout = idle
    await client.send(POST)
    assert await (await client.answer()).body() == b"{}"
    assert await client.closed() == "cut"


async def test_a_connection_is_not_idle_while_a_plain_request_is_served(bench):
    gate = asyncio.Event()

    async def slow(request: Plain) -> web.StreamResponse:
        await gate.wait()
        return await echo(request)

    bench.runner.retune(Settings(timeouts=Timeouts(keepalive_idle=0.02)))
    bench.lane = slow
    client = await bench.connect()
    await client.send(POST)
    await asyncio.sleep(0.1)
    (connection,) = bench.connections
    assert connection.waiting_since == 0
    bench.sweep()
    gate.set()
    assert await (await client.answer()).body() == b"{}"
    assert await client.closed() == "cut"


async def test_a_shutdown_waits_for_what_is_served(bench):
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(request: Plain) -> web.StreamResponse:
        begun.set()
        await gate.wait()
        return await echo(request)

    bench.lane = slow
    client = await bench.connect()
    await client.send(POST)
    await wire.within(begun.wait(), "a first request")
    (connection,) = bench.connections
    shutdown = asyncio.ensure_future(connection.shutdown(wire.PATIENCE))
    await asyncio.sleep(0)
    await client.send(POST)  # nothing new is served
    gate.set()
    assert await (await client.answer()).body() == b"{}"
    assert await client.closed() in {"cut", "reset"}
    assert not client.buffer
    await wire.within(shutdown, "the shutdown")


async def test_a_shutdown_does_not_wait_for_ever(bench):
    cancelled = asyncio.Event()

    async def stuck(_: Plain) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    bench.lane = stuck
    client = await bench.connect()
    await client.send(POST)
    await wire.within(until(lambda: bench.connections and bench.connections[0]._visit), "a first request")
    await wire.within(bench.connections[0].shutdown(0.01), "the shutdown")
    assert cancelled.is_set()
    assert await client.closed() in {"cut", "reset"}


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
        connection.transport.size = 0
        assert not connection.stalled(now + 100, 10)  # nothing waits for it
        connection.transport.size = 100_000
        connection.pause_writing()
        assert not connection.stalled(now + 100, 10)  # a first look cannot know
        assert connection.stalled(now + 100, 10)
        connection.transport.size -= 1
        assert not connection.stalled(now + 101, 10)  # it has read
        assert not connection.stalled(now + 110, 10)
        assert connection.stalled(now + 112, 10)
        connection.resume_writing()
        connection.transport.size = 0
        assert not connection.stalled(now + 200, 10)
    finally:
        connection.transport = real


async def test_a_client_that_leaves_the_last_of_its_answer_unread_stalls_too(bench):
    """It may be too little for the transport to call its buffer full."""
    _, connection = await opened(bench)
    real, connection.transport = connection.transport, Buffer()
    try:
        now = asyncio.get_running_loop().time()
        connection.transport.size = 10
        assert not connection.stalled(now, 10)
        assert not connection.stalled(now + 9, 10)
        connection.transport.size = 9
        assert not connection.stalled(now + 11, 10)  # slow, but it reads
        assert connection.stalled(now + 22, 10)
        connection.transport.size = 0
        assert not connection.stalled(now + 23, 10)
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
