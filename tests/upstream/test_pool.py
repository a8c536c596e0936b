"""Connections are made, kept and found again; failures to make one are told in our words."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.errors import TimedOut, UpstreamError
from proxy.origin import Origin
from proxy.upstream import pool as pool_module
from proxy.upstream.pool import reason
from tests.functional.upstream import Gate, Upstream, blackhole, completion, held, whole
from tests.functional.wire import listener

from . import Receiver, answered, head, origin, send


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://a.example", Origin(False, "a.example", 80)),
        ("https://a.example/v1", Origin(True, "a.example", 443)),
        ("https://a.example:8443/x/y", Origin(True, "a.example", 8443)),
        ("http://[::1]:11434", Origin(False, "::1", 11434)),
        ("HTTP://A.Example", Origin(False, "a.example", 80)),
    ],
)
def test_the_origin_of_a_url(url, origin):
    assert Origin.of(url) == origin


# Keeping


async def test_one_after_the_other_share_a_connection(pool, upstream: Upstream):
    for _ in range(5):
        await answered(pool, upstream)
    assert len(upstream.connections) == 1


async def test_at_once_each_has_its_own_and_all_are_kept(pool, upstream):
    gate = Gate()

    async def script(call) -> None:
        await gate.passed()
        await call.reply(completion())

    upstream.script = script
    for round_ in range(2):
        receivers = [(await send(pool, upstream))[1] for _ in range(40)]  # no cap but our own
        await gate.waited_at(40 * (round_ + 1))
        gate.open(40)
        for receiver in receivers:
            assert await receiver.ended_with() is None
    assert len(upstream.connections) == 40


async def test_the_latest_is_used_first(pool, upstream):
    """The others grow old and go."""
    gate = Gate()

    async def script(call) -> None:
        await gate.passed()
        await call.reply(completion())

    upstream.script = script
    receivers = [(await send(pool, upstream))[1] for _ in range(2)]
    for receiver in receivers:
        gate.open()
        await receiver.ended_with()
    gate.open_all()
    for _ in range(3):
        await answered(pool, upstream)
    assert {call.connection.number for call in upstream.calls[2:]} == {2}


async def test_origins_do_not_share(pool, upstream):
    async with Upstream(whole()) as other:
        await answered(pool, upstream)
        await answered(pool, other)
        await answered(pool, upstream)
        assert (len(upstream.connections), len(other.connections)) == (1, 1)
        await pool.close()


async def test_a_fresh_one_can_be_asked_for(pool, upstream):
    await answered(pool, upstream)
    receiver = Receiver()
    await pool.send(origin(upstream), head(upstream), b"{}", receiver, connect=5)
    await receiver.ended_with()
    assert len(upstream.connections) == 2


async def test_nothing_is_sent_where_no_connection_is_kept(pool, upstream):
    assert pool.reuse(origin(upstream), head(upstream), b"{}", Receiver()) is None
    _, receiver = await send(pool, upstream)
    assert await receiver.ended_with() is None
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("end", ["close_idle", "reset_idle"])
async def test_one_that_the_provider_closed_is_forgotten(pool, upstream, end):
    await answered(pool, upstream)
    await (await upstream.arrived()).ended()
    assert await getattr(upstream, end)() == 1
    while pool._open:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert not any(pool._idle.values())
    await answered(pool, upstream)
    assert len(upstream.connections) == 2


async def test_one_that_is_being_closed_is_not_used(pool, upstream):
    await answered(pool, upstream)
    ((connection,),) = pool._idle.values()
    connection._transport.close()  # and the loop has had no turn to tell
    await answered(pool, upstream)
    assert len(upstream.connections) == 2


async def test_idle_ones_are_closed_by_us_first(pool, upstream, monkeypatch):
    monkeypatch.setattr(pool_module, "IDLE", 0.04)
    await answered(pool, upstream)
    await upstream.quiet()
    assert not pool._open
    assert pool._sweep is None  # an idle process sleeps
    await answered(pool, upstream)
    assert len(upstream.connections) == 2


async def test_one_in_use_is_not_idle_however_long_it_takes(pool, upstream, monkeypatch):
    monkeypatch.setattr(pool_module, "IDLE", 0.02)
    await answered(pool, upstream)
    upstream.script = held([b"slow"])
    _, receiver = await send(pool, upstream)
    await receiver.told(b"slow")
    await asyncio.sleep(0.1)
    assert receiver.ends == []
    assert not upstream.calls[-1].left


async def test_an_attempt_that_is_cancelled_leaves_no_connection(pool):
    async with blackhole() as port:
        await asyncio.sleep(0.01)  # its backlog fills up
        attempt = asyncio.ensure_future(pool.send(Origin(False, "127.0.0.1", port), b"", b"", Receiver(), connect=60))
        await asyncio.sleep(0.01)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
    assert not pool._open


# Not reaching a provider


async def failure(pool, origin: Origin, connect: float = 5) -> UpstreamError | TimedOut:
    with pytest.raises((UpstreamError, TimedOut)) as caught:
        await pool.send(origin, b"", b"", Receiver(), connect=connect)
    assert origin.host not in caught.value.message
    assert str(origin.port) not in caught.value.message
    return caught.value


async def test_a_refused_connection(pool):
    with listener() as closed:
        port = closed.getsockname()[1]
    error = await failure(pool, Origin(False, "127.0.0.1", port))
    assert error.message == "no connection to the provider: connection refused"


async def test_a_name_that_does_not_resolve(pool, monkeypatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        pytest.skip("uvloop resolves names itself")
    error = await failure(pool, Origin(False, "provider.example", 80))
    assert error.message == "no connection to the provider: its name does not resolve"


async def test_a_connection_that_takes_too_long(pool):
    async with blackhole() as port:
        await asyncio.sleep(0.01)
        error = await failure(pool, Origin(False, "127.0.0.1", port), connect=0.05)
    assert isinstance(error, TimedOut)
    assert error.clock == "connect"
    assert "0.05 s (timeouts.connect)" in error.message


async def test_a_handshake_counts_as_connecting(pool):
    """Somebody listens and says nothing."""
    with listener() as mute:
        mute.listen(5)
        error = await failure(pool, Origin(True, "127.0.0.1", mute.getsockname()[1]), connect=0.05)
    assert isinstance(error, TimedOut)


@pytest.mark.parametrize(
    ("exc", "says"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('10.0.0.1', 80)"), "connection refused"),
        (ConnectionResetError(104, "x"), "connection reset"),
        (socket.gaierror(-2, "Name or service not known"), "its name does not resolve"),
        (OSError(101, "Network is unreachable: 10.0.0.1"), "Network is unreachable"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1)"), "network error"),
    ],
)
def test_why_a_connection_failed_is_said_without_to_whom(exc, says):
    assert reason(exc) == says


# TLS


async def test_a_trusted_certificate_is_trusted(pool, server_side, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with Upstream(whole(), tls=server_side) as upstream:
        for _ in range(2):
            assert (await answered(pool, upstream)).head.status == 200
        assert len(upstream.connections) == 1
        await pool.close()


async def test_another_one_is_not(pool, server_side):
    async with Upstream(whole(), tls=server_side) as upstream:
        error = await failure(pool, Origin(True, "127.0.0.1", upstream.port))
        assert error.message.startswith("the provider's certificate is not trusted: self")
        assert not upstream.calls


async def test_nor_is_one_for_another_name(pool, server_side, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with Upstream(whole(), tls=server_side) as upstream:
        error = await failure(pool, Origin(True, "localhost", upstream.port))
        assert error.message.startswith("the provider's certificate is not trusted")


async def test_a_provider_that_does_not_speak_tls_is_told(pool):
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    with listener() as sock:
        server = await asyncio.start_server(plain, sock=sock)
        error = await failure(pool, Origin(True, "127.0.0.1", sock.getsockname()[1]))
        server.close()
    assert error.message.startswith("TLS with the provider failed")


def test_heads_end_before_the_length(upstream):
    assert head(upstream).endswith(b"Content-Length: ")
