"""Where we listen, and what is said when we cannot."""

import os
import socket

import pytest

from proxy import sockets
from proxy.sockets import CannotListen
from tests.processes import needs_ipv6


@pytest.fixture
def bound():
    """Bind through this; everything is closed afterwards."""
    opened = []

    def bind(host, port=0):
        opened.extend(fresh := sockets.bind(host, port))
        return fresh

    yield bind
    sockets.close(opened)


def listening(family=socket.AF_INET, address=("127.0.0.1", 0)):
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen()
    return sock


@pytest.mark.parametrize(
    ("host", "family", "url"),
    [
        pytest.param("127.0.0.1", socket.AF_INET, "http://127.0.0.1:{}", id="ipv4"),
        pytest.param("::1", socket.AF_INET6, "http://[::1]:{}", id="ipv6", marks=needs_ipv6),
        pytest.param("0.0.0.0", socket.AF_INET, "http://0.0.0.0:{}", id="every-ipv4"),
    ],
)
def test_an_address_is_one_socket_that_listens(bound, host, family, url):
    (sock,) = bound(host)
    assert sock.family == family
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert sockets.where([sock]) == url.format(sock.getsockname()[1])


@needs_ipv6
def test_a_name_with_two_addresses_is_one_port_on_both(bound, monkeypatch):
    def both(host, port, **_):
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),  # twice in /etc/hosts
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    found = bound("gateway.test")
    assert [sock.family for sock in found] == [socket.AF_INET6, socket.AF_INET]
    assert len({sock.getsockname()[1] for sock in found}) == 1


@needs_ipv6
def test_an_address_that_this_machine_lacks_does_not_harm_the_others(bound, monkeypatch):
    def both(host, port, **_):
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    (sock,) = bound("gateway.test")
    assert sock.getsockname()[0] == "127.0.0.1"


def test_a_taken_port_is_said_with_the_setting_to_change(bound):
    port = bound("127.0.0.1")[0].getsockname()[1]
    with pytest.raises(CannotListen) as refused:
        sockets.bind("127.0.0.1", port)
    assert str(refused.value) == f"cannot listen on 127.0.0.1:{port}: the port is in use (server.port)"


def test_an_address_of_another_machine_is_said_with_the_setting_to_change():
    with pytest.raises(CannotListen) as refused:
        sockets.bind("192.0.2.1", 8080)
    assert str(refused.value) == (
        "cannot listen on 192.0.2.1:8080: this machine does not have the address (server.host)"
    )


@pytest.mark.parametrize(
    "host", [pytest.param("no-such-host.invalid", id="unknown"), pytest.param("a" * 64, id="label-too-long")]
)
def test_a_name_that_leads_nowhere_is_said_with_the_setting_to_change(host):
    with pytest.raises(CannotListen, match=rf"cannot listen on {host}:8080: .+ \(server\.host\)"):
        sockets.bind(host, 8080)


def test_a_restart_does_not_wait_for_old_connections(bound):
    """The side that closes first keeps the port in TIME_WAIT."""
    (first,) = bound("127.0.0.1")
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        first.setblocking(True)
        first.accept()[0].close()
        assert client.recv(1) == b""
    first.close()
    assert bound("127.0.0.1", port)


# Handed over...


def test_a_listening_descriptor_is_taken_over_and_not_passed_on():
    given = listening()
    os.set_inheritable(given.fileno(), True)
    (taken,) = sockets.inherit([given.detach()])
    with taken:
        assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not taken.getblocking()
        assert not os.get_inheritable(taken.fileno())


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: socket.socketpair()[0], id="a-connection"),
        pytest.param(lambda: socket.socket(type=socket.SOCK_DGRAM), id="datagrams"),
        pytest.param(lambda: open("/dev/null"), id="no-socket"),  # noqa: SIM115
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the other end of the pair
def test_anything_else_is_refused(make):
    with make() as other, pytest.raises(CannotListen, match=f"cannot listen on descriptor {other.fileno()}: "):
        sockets.inherit([other.fileno()])


@pytest.mark.parametrize(
    ("family", "address", "exposed"),
    [
        pytest.param(socket.AF_INET, ("127.0.0.1", 0), None, id="loopback"),
        pytest.param(socket.AF_INET, ("127.1.2.3", 0), None, id="all-of-127"),
        pytest.param(socket.AF_INET6, ("::1", 0), None, id="ipv6-loopback", marks=needs_ipv6),
        pytest.param(socket.AF_INET6, ("::ffff:127.0.0.1", 0), None, id="mapped-loopback", marks=needs_ipv6),
        pytest.param(socket.AF_INET, ("0.0.0.0", 0), "0.0.0.0", id="every-address"),
        pytest.param(socket.AF_INET6, ("::", 0), "::", id="every-ipv6-address", marks=needs_ipv6),
    ],
)
def test_which_sockets_other_machines_reach(family, address, exposed):
    with listening() as ours, listening(family, address) as sock:
        assert sockets.exposed([ours, sock]) == exposed


def test_a_unix_socket_is_this_machines(tmp_path):
    with listening(socket.AF_UNIX, str(tmp_path / "s")) as sock:
        assert sockets.exposed([sock]) is None
        assert sockets.where([sock]) == f"unix:{tmp_path / 's'}"
