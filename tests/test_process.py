"""One process: how it starts, what its signals do, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxy import sockets
from tests.functional import KEY, authorized, chat_body, config
from tests.functional.upstream import completion, conversation, held, ordinary, silent, whole
from tests.functional.wire import Connection, connect, listener
from tests.processes import NotifySocket, Process, begun, chat, file_of, finished, half_open, needs_ipv6, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.functional.upstream import Upstream

STREAMS = 200


@pytest.fixture
async def process(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Process]:
    """A closed gateway before ``upstream``, in a process of its own."""
    async with serving(tmp_path, config(upstream.url)) as started:
        yield started


# Starting...


async def test_it_says_where_it_listens_to_whom_and_what(process: Process) -> None:
    line = await process.logged("listening on")
    assert f"listening on http://127.0.0.1:{process.port} (closed: 1 key), 1 model" in line
    assert process.out == []


async def test_a_taken_port_is_one_line_at_once(tmp_path: Path) -> None:
    with listener() as taken:
        taken.listen()
        port = taken.getsockname()[1]
        process = await Process.start(tmp_path, config("http://127.0.0.1:9"), "--port", str(port))
        assert await process.ended() == 1
    assert process.err == [f"cannot listen on 127.0.0.1:{port}: the port is in use (server.port)"]
    assert process.out == []


async def test_a_mistake_in_the_file_is_one_line(tmp_path: Path) -> None:
    process = await Process.start(tmp_path, config("http://127.0.0.1:9", "[timeouts]\nidel = 1"))
    assert await process.ended() == 2
    (line,) = process.err
    assert 'timeouts: unknown setting "idel"; did you mean "idle"?' in line


async def test_a_warning_is_one_line_and_it_serves(upstream: Upstream, tmp_path: Path) -> None:
    other = [{"name": "other", "kind": "openai", "api_key": "env:NOT_SET_ANYWHERE"}]
    async with serving(tmp_path, config(upstream.url, providers=other)) as process:
        assert len(process.said("NOT_SET_ANYWHERE is not set")) == 1
        assert (await chat(await process.connect())).status == 200


@pytest.mark.parametrize("host", [pytest.param("::1", marks=needs_ipv6), "localhost"])
async def test_other_ways_to_name_this_machine(upstream: Upstream, tmp_path: Path, host: str) -> None:
    async with serving(tmp_path, config(upstream.url), "--host", host, "--port", "0") as process:
        url = (await process.logged("listening on")).partition("http://")[2]
        client = await process.connect("::1" if url.startswith("[::1]") else "127.0.0.1")
        assert (await client.ask("GET", "/livez")).status == 200


# Sockets from systemd...


def after(code: str) -> tuple[str, ...]:
    """The program, after some Python in the same process."""
    serve = "os.execv(sys.executable, [sys.executable, '-m', 'proxy', 'serve', *sys.argv[1:]])"
    return (sys.executable, "-c", f"import os, resource, sys; {code}; {serve}")


def handing_over(sock: socket.socket) -> tuple[str, ...]:
    """What systemd does between fork and exec: the socket becomes descriptor 3, and the variables say so."""
    told = "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='http')"
    return after(f"{told}; os.dup2({sock.fileno()}, 3)")


async def test_a_socket_that_is_handed_over_is_served_with_all_that_waits_there(
    upstream: Upstream, tmp_path: Path
) -> None:
    with listener() as sock:
        sock.listen()
        text = config(upstream.url, server={"host": "192.0.2.1", "port": 1})  # not used, so not a mistake
        async with await connect(sock.getsockname()[1]) as early:
            await early.request("GET", "/livez")
            async with serving(tmp_path, text, descriptors=[sock.fileno()], program=handing_over(sock)) as process:
                assert process.port == early.port
                assert (await early.answer()).status == 200
                assert (await chat(await process.connect())).status == 200


async def test_a_unix_socket_is_served_too(upstream: Upstream, tmp_path: Path) -> None:
    path = str(tmp_path / "gateway.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        text = config(upstream.url)
        async with serving(tmp_path, text, descriptors=[sock.fileno()], program=handing_over(sock)) as process:
            assert f"listening on unix:{path} " in await process.logged("listening on")
            with socket.socket(socket.AF_UNIX) as client_sock:
                client_sock.setblocking(False)
                client_sock.connect(path)
                async with Connection(client_sock, 80) as client:
                    assert (await chat(client)).status == 200
            process.send(signal.SIGTERM)
            assert await process.ended() == 0


async def test_an_open_gateway_refuses_a_socket_that_others_reach(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        sock.listen()
        text = config("http://127.0.0.1:9", keys=[])
        process = await Process.start(tmp_path, text, descriptors=[sock.fileno()], program=handing_over(sock))
        assert await process.ended() == 2
    (line,) = process.err
    assert "loopback addresses only, not 0.0.0.0; make a key with" in line


async def test_systemd_hears_each_step_in_order(upstream: Upstream, tmp_path: Path) -> None:
    manager = NotifySocket(tmp_path / "notify")
    environ = {**manager.environ, "WATCHDOG_USEC": "2000000"}
    async with serving(tmp_path, config(upstream.url), environ=environ) as process:
        assert await manager.message() == {"READY": "1", "STATUS": "serving"}
        for text in (config(upstream.url), "nonsense"):  # a file that is refused ends the reload, too
            process.rewrite(text)
            process.send(signal.SIGHUP)
            told = await manager.message()
            assert told["RELOADING"] == "1"
            assert told["MONOTONIC_USEC"].isdecimal()
            assert (await manager.message())["READY"] == "1"
        process.send(signal.SIGTERM)
        assert (await manager.message())["STOPPING"] == "1"
        assert await process.ended() == 0
    manager.close()


# SIGHUP...


async def test_three_reloads_cut_no_stream(process: Process, upstream: Upstream) -> None:
    rest = half_open(upstream)
    streams = await begun(process, STREAMS)
    for number in (1, 2, 3):
        line = await process.reload(config(upstream.url, timeouts={"idle": 100 + number}))
        assert "1 model, 1 key" in line
        assert process.running
    rest.set()
    await finished(streams)


async def test_a_reload_ends_one_key_and_begins_another(process: Process, upstream: Upstream) -> None:
    rest = half_open(upstream)
    streams = await begun(process)
    client = await process.connect()
    fresh = [{"name": "desk", "key": "sk-another-key"}]
    await process.reload(config(upstream.url, keys=[]) + '[[keys]]\nname = "desk"\nkey = "sk-another-key"\n')
    upstream.script = ordinary()
    refused = await chat(client)
    assert refused.status == 401
    await refused.body()
    assert (await chat(client, fresh[0]["key"])).status == 200
    rest.set()
    await finished(streams)  # a running request keeps the settings that it began with


async def test_a_broken_file_changes_nothing_and_says_why(process: Process, upstream: Upstream) -> None:
    line = await process.reload(config(upstream.url, "[timeouts]\nidel = 1"), "not reloaded")
    assert 'timeouts: unknown setting \\"idel\\"; did you mean \\"idle\\"?' in line
    assert (await chat(await process.connect())).status == 200
    assert process.said("reloaded") == [line]


async def test_a_file_that_is_gone_changes_nothing(process: Process) -> None:
    process.config.unlink()
    process.send(signal.SIGHUP)
    assert str(process.config) in await process.logged("not reloaded")
    assert (await chat(await process.connect())).status == 200


async def test_what_needs_a_restart_is_said(process: Process, upstream: Upstream) -> None:
    await process.reload(config(upstream.url, server={"host": "::1", "workers": 2}, state={"url": "redis://127.0.0.1"}))
    await process.logged("server.host, server.workers, [state]: changed, but this needs a restart")
    assert (await chat(await process.connect())).status == 200


async def test_sigusr2_does_not_end_a_single_process(process: Process) -> None:
    process.send(signal.SIGUSR2)
    await process.logged("needs server.workers of 2 or more")
    assert (await chat(await process.connect())).status == 200


# SIGTERM, SIGINT...


async def test_sigterm_cuts_no_stream(process: Process, upstream: Upstream) -> None:
    rest = half_open(upstream)
    streams = await begun(process, STREAMS)
    process.send(signal.SIGTERM)
    assert f"SIGTERM: draining, {STREAMS} exchanges live" in await process.logged("draining")
    with pytest.raises(ConnectionRefusedError):
        await process.connect()
    sockets.close(sockets.bind("127.0.0.1", process.port))  # the next gateway need not wait for this one
    assert process.running
    rest.set()
    await finished(streams)
    assert await process.ended() == 0
    assert process.said("nothing was cut")


async def test_a_whole_answer_is_waited_for(process: Process, upstream: Upstream) -> None:
    answered = asyncio.Event()

    async def script(call: Any) -> None:
        await answered.wait()
        await ordinary()(call)

    upstream.script = script
    client = await process.connect()
    await client.request("POST", "/v1/chat/completions", headers=authorized(KEY), json=chat_body())
    await upstream.arrived()
    process.send(signal.SIGTERM)
    await process.logged("draining")
    answered.set()
    answer = await client.answer()
    assert answer.status == 200
    assert (await answer.json())["choices"]
    assert await process.ended() == 0


async def test_whatever_arrives_on_open_connections_is_told_to_go(process: Process, upstream: Upstream) -> None:
    rest = half_open(upstream)
    streams = await begun(process)
    used, unused, probing = [await process.connect() for _ in range(3)]
    for client in (used, unused, probing):
        answer = await client.ask("GET", "/livez")
        assert answer.status == 200
        await answer.body()
    process.send(signal.SIGTERM)
    await process.logged("draining")
    for answer in (
        await chat(used),
        await unused.ask("GET", "/v1/models", headers=authorized(KEY)),
        await probing.ask("GET", "/readyz"),
    ):
        assert answer.status == 503
        assert (answer.header("connection") or "").lower() == "close"
        assert answer.header("retry-after")
        await answer.body()
        assert await answer.connection.closed() == "cut"
    rest.set()
    await finished(streams)
    assert await process.ended() == 0


async def test_without_a_live_exchange_it_ends_at_once(process: Process) -> None:
    """An idle connection is no reason to wait ``drain``, which is five minutes, nor is one that never asked."""
    client, silent_one = await process.connect(), await process.connect()
    answer = await client.ask("GET", "/livez")
    await answer.body()
    process.send(signal.SIGTERM)
    assert await process.ended() == 0
    assert await client.closed() == "cut"
    assert await silent_one.closed() == "cut"


async def test_requests_that_come_together_with_the_signal_are_answered(process: Process) -> None:
    """On old connections, and on new ones: the kernel has already told those that they are connected."""
    clients = [await process.connect() for _ in range(20)]
    for client in clients:
        await (await client.ask("GET", "/livez")).body()
    process.send(signal.SIGSTOP)
    clients += [await process.connect() for _ in range(20)]
    for client in clients:
        await client.request("GET", "/livez")
    process.send(signal.SIGTERM)
    process.send(signal.SIGCONT)  # all of it is there when it looks
    for client in clients:
        assert (await client.answer()).status in {200, 503}
    assert await process.ended() == 0


@pytest.mark.parametrize(("first", "drain"), [(signal.SIGTERM, "300 s"), (signal.SIGINT, "5 s")])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(
    process: Process, upstream: Upstream, first: signal.Signals, drain: str, second: signal.Signals
) -> None:
    upstream.script = held(conversation("a")[:2])
    await begun(process)
    process.send(first)
    assert f"{first.name}: draining, 1 exchange live, at most {drain}" in await process.logged("draining")
    process.send(second)
    assert await process.ended() == 128 + second


async def test_stragglers_are_told(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(tmp_path, config(upstream.url, server={"drain": 0.2})) as process:
        upstream.script = silent()
        waiting = await process.connect()
        await waiting.request("POST", "/v1/chat/completions", headers=authorized(KEY), json=chat_body())
        await upstream.arrived()
        upstream.script = held(conversation("a")[:2])
        (stream,) = await begun(process)
        process.send(signal.SIGTERM)
        frames = await stream.events()
        assert stream.whole
        assert [frame.json["error"]["code"] for frame in frames if not frame.done] == ["overloaded"]
        answer = await waiting.answer()
        assert answer.status == 503
        assert (await answer.json())["error"]["code"] == "overloaded"
        assert await process.ended() == 0
        assert process.said("cut after 0.2 s: 2 exchanges")


async def test_a_slow_reader_gets_the_last_byte(upstream: Upstream, tmp_path: Path) -> None:
    """The exchange is over, but most of the answer still stands in our own buffers."""
    short = "from proxy import cli, serving; serving.LAST_WORDS = 0.001; sys.exit(cli.main(['serve', *sys.argv[1:]]))"
    told = completion("w" * 8_000_000)
    upstream.script = whole(told)
    async with serving(
        tmp_path, config(upstream.url), program=(sys.executable, "-c", f"import sys; {short}")
    ) as process:
        client = await process.connect(receive_buffer=4096)
        await client.request("POST", "/v1/chat/completions", headers=authorized(KEY), json=chat_body())
        await process.logged('"route":"chat_completions"')
        process.send(signal.SIGTERM)
        await process.logged("draining, 0 exchanges live")
        assert await (await client.answer()).json() == told
        assert await process.ended() == 0


# Too many...


async def test_without_descriptors_it_is_neither_deaf_for_ever_nor_loud(upstream: Upstream, tmp_path: Path) -> None:
    few = after("resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))")
    async with serving(tmp_path, config(upstream.url), program=few) as process:
        before = len(process.err)
        clients = [await process.connect() for _ in range(150)]
        assert (await clients[0].ask("GET", "/livez")).status == 200
        for client in clients:
            client.close()
        answered = None
        while answered is None:  # until it has noticed that they left
            client = await process.connect()
            with contextlib.suppress(ConnectionError):
                await client.request("GET", "/livez")
                answered = await client.line()
        assert len(process.err) - before <= 3


async def test_the_soft_limit_of_descriptors_is_raised(upstream: Upstream, tmp_path: Path) -> None:
    few = after("resource.setrlimit(resource.RLIMIT_NOFILE, (128, 4000))")
    async with serving(tmp_path, config(upstream.url), program=few) as process:
        limits = file_of(process.pid, "limits")
        (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert line.split()[3:5] == ["4000", "4000"]
