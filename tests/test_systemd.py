"""What goes over systemd's protocols."""

import asyncio
import os
import socket

import pytest

from proxy import systemd


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def test_a_message_is_one_datagram_of_lines(manager):
    systemd.notify("READY=1", "STATUS=serving", environ={"NOTIFY_SOCKET": manager.getsockname()})
    assert manager.recv(4096) == b"READY=1\nSTATUS=serving"


def test_an_abstract_socket_begins_with_an_at_sign():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # the kernel picks an abstract name
        address = sock.getsockname()
        assert address[:1] == b"\0"
        systemd.notify("READY=1", environ={"NOTIFY_SOCKET": "@" + address[1:].decode()})
        assert sock.recv(4096) == b"READY=1"


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="no-service-manager"),
        pytest.param({"NOTIFY_SOCKET": ""}, id="empty"),
        pytest.param({"NOTIFY_SOCKET": "/nonexistent/socket"}, id="gone"),
        pytest.param({"NOTIFY_SOCKET": "vsock:2:1234"}, id="vsock"),
    ],
)
def test_nobody_who_listens_is_not_an_error(environ):
    systemd.notify("READY=1", environ=environ)


def test_a_full_queue_does_not_block(manager):
    for _ in range(10_000):
        systemd.notify("WATCHDOG=1", environ={"NOTIFY_SOCKET": manager.getsockname()})


def test_a_reload_tells_its_time_in_microseconds(manager, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setattr("time.clock_gettime_ns", lambda clock: 12_345_678)
    systemd.reloading()
    systemd.ready("serving")
    systemd.stopping(1.5)
    assert [manager.recv(4096) for _ in range(3)] == [
        b"RELOADING=1\nMONOTONIC_USEC=12345",
        b"READY=1\nSTATUS=serving",
        b"STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\nSTATUS=draining",
    ]


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        pytest.param({}, None, id="no-watchdog"),
        pytest.param({"WATCHDOG_USEC": "30000000"}, 15.0, id="half-of-what-is-allowed"),
        pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0, id="ours"),
        pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None, id="another-process'"),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="off"),
        pytest.param({"WATCHDOG_USEC": "soon"}, None, id="nonsense"),
    ],
)
def test_how_often_the_watchdog_wants_to_hear(environ, interval):
    assert systemd.watchdog_interval(environ) == interval


@pytest.mark.parametrize(
    ("environ", "descriptors"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, [3, 4], id="two"),
        pytest.param({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, [], id="another-process'"),
        pytest.param({"LISTEN_FDS": "2"}, [], id="nobody's"),
        pytest.param({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"}, [], id="nonsense"),
    ],
)
def test_sockets_are_handed_over_once(environ, descriptors):
    assert systemd.take_descriptors(environ) == descriptors
    assert environ == {}  # a child must not take them for its own


async def test_the_watchdog_hears_again_and_again(manager, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    task = asyncio.create_task(systemd.watchdog())
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        assert [await loop.sock_recv(manager, 4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    task.cancel()


async def test_without_a_watchdog_nothing_is_sent(manager, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await systemd.watchdog()
    with pytest.raises(BlockingIOError):
        manager.recv(4096)
