"""On the way to a provider: proxies that the environment names, addresses that a name has, TLS at the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from proxy.errors import TimedOut, UpstreamError
from proxy.origin import TLS, Origin
from proxy.upstream import Upstream as Pool
from proxy.upstream.dialing import Dialer, Proxies, is_loopback
from tests.functional.upstream import Upstream, whole
from tests.functional.wire import listener

from . import Receiver, sent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

PLAIN, SECURE = Origin(False, "provider.example", 80), Origin(True, "provider.example", 443)


# Which proxy, if any


@pytest.mark.parametrize(
    ("environ", "origin", "found"),
    [
        pytest.param({}, SECURE, None, id="none"),
        pytest.param({"https_proxy": "http://p:3128"}, SECURE, ("p", 3128, ""), id="https"),
        pytest.param({"https_proxy": "http://p:3128"}, PLAIN, None, id="https-is-not-for-http"),
        pytest.param({"HTTP_PROXY": "http://p:3128"}, PLAIN, ("p", 3128, ""), id="in-capitals"),
        pytest.param({"https_proxy": "http://a", "HTTPS_PROXY": "http://b"}, SECURE, ("a", 80, ""), id="small-wins"),
        pytest.param({"ALL_PROXY": "p:1080"}, SECURE, ("p", 1080, ""), id="all-without-a-scheme"),
        pytest.param({"all_proxy": "http://u%40:p%3A@p"}, PLAIN, ("p", 80, "Basic dUA6cDo="), id="credentials"),
        pytest.param({"https_proxy": ""}, SECURE, None, id="empty"),
    ],
)
def test_the_environment_names_a_proxy(environ, origin, found):
    assert Proxies(environ).find(origin) == found


@pytest.mark.parametrize("host", ["localhost", "api.localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_never_uses_one(host):
    assert is_loopback(host)
    assert Proxies({"all_proxy": "http://p"}).find(Origin(True, host, 443)) is None


@pytest.mark.parametrize(
    ("rules", "host", "direct"),
    [
        ("*", "a.example", True),
        ("a.example", "a.example", True),
        ("example", "a.example", True),
        (".example", "a.example", True),
        ("*.example", "a.example", True),
        ("xample", "a.example", False),
        ("A.Example", "a.example", True),
        ("b.example, a.example", "a.example", True),
        ("a.example:443", "a.example", True),
        ("a.example:8443", "a.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]", "fd00::1", True),
        (",, ,", "a.example", False),
    ],
)
def test_what_no_proxy_covers_is_asked_directly(rules, host, direct):
    proxies = Proxies({"https_proxy": "http://p", "no_proxy": rules})
    assert (proxies.find(Origin(True, host, 443)) is None) is direct


@pytest.mark.parametrize("url", ["socks5://p:1080", "https://p:443", "http://"])
def test_other_kinds_are_not_spoken(url):
    with pytest.raises(UpstreamError, match="other kinds are not spoken"):
        Proxies({"https_proxy": url}).find(SECURE)


# Through one


class Middleman:
    """A proxy: remembers what it was asked, and leads every tunnel to ``port``."""

    def __init__(self, port: int = 0, reply: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.port = port
        self.reply = reply
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                if not self.heads[-1].startswith(b"CONNECT"):
                    await reader.readexactly(2)  # the body
                writer.write(self.reply)
                if self.port and self.heads[-1].startswith(b"CONNECT"):
                    await self._lead(reader, writer)
                if not self.reply.startswith(b"HTTP/1.1 200"):
                    break

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(copied(reader, out), copied(there, writer))


async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@pytest.fixture
async def through(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., object]]:
    """Make a pool whose way leads through a middleman."""
    async with contextlib.AsyncExitStack() as stack:

        async def way(middleman: Callable[..., Awaitable[None]], credentials: str = "") -> Pool:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                served.append(asyncio.current_task())
                await middleman(reader, writer)
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

            sock, served = listener(), []
            server = await asyncio.start_server(serve, sock=sock)
            stack.callback(server.close)
            stack.push_async_callback(lambda: asyncio.gather(*served))
            monkeypatch.setenv("all_proxy", f"http://{credentials}127.0.0.1:{sock.getsockname()[1]}")
            pool = Pool()
            stack.push_async_callback(pool.close)
            return pool

        yield way


async def ask(pool: Pool, origin: Origin, connect: float = 5) -> Receiver:
    receiver = Receiver()
    head = b"POST /v1/chat HTTP/1.1\r\nHost: provider.example\r\nContent-Length: "
    await sent(pool, origin, head, b"{}", receiver, connect=connect)
    assert await receiver.ended_with() is None
    return receiver


async def test_tls_goes_through_a_tunnel(through, server_side, certificate):
    """The proxy learns where to, and nothing else; the provider learns nothing of the proxy."""
    origin = SECURE._replace(tls=TLS(ca=str(certificate)))
    async with Upstream(whole(), tls=server_side) as upstream:
        middleman = Middleman(upstream.port)
        pool = await through(middleman, "user:secret@")
        for _ in range(2):
            assert (await ask(pool, origin)).head.status == 200
        assert middleman.heads == [
            b"CONNECT provider.example:443 HTTP/1.1\r\nHost: provider.example:443\r\n"
            b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n"
        ]
        assert [call.target for call in upstream.calls] == ["/v1/chat"] * 2
        assert upstream.calls[1].reused
        assert upstream.calls[0].header("Proxy-Authorization") is None
        await pool.close()


async def test_the_certificate_is_the_provider_s_not_the_proxy_s(through, server_side):
    async with Upstream(whole(), tls=server_side) as upstream:
        pool = await through(Middleman(upstream.port))
        with pytest.raises(UpstreamError, match="certificate is not trusted"):
            await ask(pool, SECURE)
        await pool.close()


async def test_plain_http_is_asked_of_the_proxy_in_absolute_form(through):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    middleman = Middleman(reply=answer)
    pool = await through(middleman, "user:secret@")
    for _ in range(2):
        assert (await ask(pool, PLAIN)).body == b"{}"
    head = (
        b"POST http://provider.example:80/v1/chat HTTP/1.1\r\nProxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"
        b"Host: provider.example\r\nContent-Length: 2\r\n\r\n"
    )
    assert middleman.heads == [head, head]  # on the same connection


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "answered 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>provider.example</html>", "answered 502"),
        (b"SSH-2.0\r\n\r\n", "answered nothing"),
        (b"HTTP/1.1 ", "broke off"),
        (b"", "broke off"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, "broke off"),
    ],
    ids=["407", "502", "another-protocol", "half-a-head", "nothing", "an-endless-head"],
)
async def test_a_proxy_that_refuses_is_told(through, reply, says):
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(reply)
            await writer.drain()

    pool = await through(refuses)
    with pytest.raises(UpstreamError, match=f"the proxy on the way to the provider {says}") as caught:
        await ask(pool, SECURE)
    assert "provider.example" not in caught.value.message
    assert not pool._open


async def test_a_proxy_that_says_nothing_counts_as_connecting(through):
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    pool = await through(mute)
    with pytest.raises(TimedOut, match=r"timeouts\.connect"):
        await ask(pool, SECURE, connect=0.05)


# A name's addresses


async def test_another_address_is_tried_where_the_first_refuses(pool, monkeypatch):
    async with Upstream(whole()) as upstream:

        async def two(*_: object, **__: object) -> list[object]:
            told = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*told, ("127.0.0.2", upstream.port)), (*told, ("127.0.0.1", upstream.port))]

        loop = asyncio.get_running_loop()
        if type(loop).__module__.startswith("uvloop"):
            pytest.skip("uvloop's methods cannot be replaced")
        monkeypatch.setattr(loop, "getaddrinfo", two)
        assert (await ask(pool, Origin(False, "provider.example", upstream.port))).head.status == 200
        await pool.close()


# Files for TLS


async def test_a_client_certificate_is_shown(pool, certificate):
    """Where the provider asks for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    async with Upstream(whole(), tls=context) as upstream:
        files = TLS(ca=str(certificate), certificate=str(certificate))
        assert (await ask(pool, Origin(True, "127.0.0.1", upstream.port, files))).head.status == 200
        await pool.close()


@pytest.mark.parametrize("content", [None, "", "no PEM"], ids=["missing", "empty", "no-pem"])
async def test_files_that_cannot_be_used_are_told_without_their_names(pool, tmp_path: Path, content):
    path = tmp_path / "secret.pem"
    if content is not None:
        path.write_text(content)
    async with Upstream(whole()) as upstream:
        with pytest.raises(UpstreamError, match="TLS files cannot be used") as caught:
            await ask(pool, Origin(True, "127.0.0.1", upstream.port, TLS(ca=str(path))))
        assert "secret" not in caught.value.message
        await upstream.quiet()


def test_what_was_in_the_same_files_before_is_not_kept(certificate):
    dialer, files = Dialer({}), TLS(ca=str(certificate))
    other = dialer._context(TLS(ca=str(certificate), certificate=str(certificate)))
    first, again, second = (dialer._context(files._replace(seal=seal)) for seal in "112")
    assert first is again
    assert second is not first
    assert set(dialer._contexts.values()) == {other, second}
