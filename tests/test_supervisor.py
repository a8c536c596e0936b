"""Several processes: who starts them, who replaces them, and how they end together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxy import sockets, supervisor
from proxy.launch import Launch
from tests.functional import KEY, config
from tests.functional.upstream import ordinary
from tests.processes import (
    PATIENCE,
    NotifySocket,
    Process,
    begun,
    chat,
    file_of,
    finished,
    half_open,
    launched,
    serving,
)
from tests.test_worker import instead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.functional.upstream import Upstream

#: More than one process needs a shared state; nothing here asks for it.
SHARED = '[server]\nworkers = 2\n[state]\nurl = "redis://127.0.0.1:1"\n'


def two(upstream: Upstream, text: str = "", **tables: Any) -> str:
    return config(upstream.url, SHARED + text, **tables)


@pytest.fixture
async def process(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Process]:
    """A supervisor with two workers that serve."""
    async with serving(tmp_path, two(upstream)) as started:
        yield started


def workers(process: Process) -> list[int]:
    """The process ids of all workers that ever served, oldest first."""
    return [int(found[1]) for line in process.err if (found := re.search(r"worker (\d+) serves", line))]


@contextlib.contextmanager
def only(pid: int, *others: int) -> Iterator[None]:
    """New connections are taken by ``pid``: the others stand still."""
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


async def gone(*pids: int) -> None:
    """Wait until these processes, which are not our children, have ended."""
    loop = asyncio.get_running_loop()
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            async with asyncio.timeout(PATIENCE):
                await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def environ_of(pid: int) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in file_of(pid, "environ").split("\0") if "=" in entry)


def is_there(path: Path) -> bool:
    return path.exists()


def metrics_of(pid: int) -> Path:
    return Path(environ_of(pid)["PROMETHEUS_MULTIPROC_DIR"])


# Starting...


async def test_every_worker_serves_on_the_same_socket(process: Process) -> None:
    assert "(closed: 1 key), 1 model, 2 workers" in await process.logged("listening on")
    one, other = workers(process)
    for pid, second in ((one, other), (other, one)):
        with only(pid, second):
            assert (await chat(await process.connect())).status == 200


async def test_the_supervisor_stays_small(process: Process) -> None:
    """What it does not import cannot fail in it."""
    assert "aiohttp" not in file_of(process.pid, "maps")
    assert "aiohttp" in file_of(workers(process)[0], "maps")


async def test_systemd_hears_only_the_supervisor_and_once_every_worker_serves(
    upstream: Upstream, tmp_path: Path
) -> None:
    manager = NotifySocket(tmp_path / "notify")
    async with serving(tmp_path, two(upstream), environ=manager.environ) as process:
        assert await manager.message() == {"READY": "1", "STATUS": "serving"}
        assert len(workers(process)) == 2
        assert all("NOTIFY_SOCKET" not in environ_of(pid) for pid in workers(process))
        await process.reload(two(upstream), "in 2 workers")
        assert (await manager.message())["RELOADING"] == "1"
        assert (await manager.message())["READY"] == "1"
        process.send(signal.SIGTERM)
        assert (await manager.message())["STOPPING"] == "1"
        assert await process.ended() == 0
    manager.close()


async def test_a_taken_port_is_one_line_at_once(upstream: Upstream, tmp_path: Path) -> None:
    (taken,) = sockets.bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    process = await Process.start(tmp_path, two(upstream), "--port", str(port))
    assert await process.ended() == 1
    assert process.err == [f"cannot listen on 127.0.0.1:{port}: the port is in use (server.port)"]
    taken.close()


async def test_flags_reach_the_workers(upstream: Upstream, tmp_path: Path) -> None:
    text = config(upstream.url, SHARED.replace("workers = 2", "workers = 1"), server={"host": "192.0.2.1", "port": 1})
    async with serving(tmp_path, text, "--host", "localhost", "--port", "0", "--workers", "2") as process:
        assert len(workers(process)) == 2


# A worker that dies...


async def test_a_worker_that_dies_is_replaced_and_the_others_streams_live_on(
    process: Process, upstream: Upstream
) -> None:
    survivor, victim = workers(process)
    rest = half_open(upstream)
    with only(survivor, victim):
        streams = await begun(process, 20)
    os.kill(victim, signal.SIGKILL)
    await process.logged(f"worker {victim} was ended by SIGKILL")
    await process.logged("serves", times=3)
    replacement = workers(process)[-1]
    rest.set()
    await finished(streams)
    upstream.script = ordinary()
    with only(replacement, survivor):
        assert (await chat(await process.connect())).status == 200


async def test_workers_drain_and_end_when_their_supervisor_is_killed(process: Process, upstream: Upstream) -> None:
    pids = workers(process)
    rest = half_open(upstream)
    streams = await begun(process, 20)
    process.send(signal.SIGKILL)
    await process.logged("draining", times=2)
    with pytest.raises(ConnectionRefusedError):
        await process.connect()
    rest.set()
    await finished(streams)
    await gone(*pids)


# Signals...


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_end_cuts_no_stream(process: Process, upstream: Upstream, number: signal.Signals) -> None:
    pids = workers(process)
    directory = metrics_of(pids[0])
    assert is_there(directory)
    rest = half_open(upstream)
    streams = await begun(process, 20)
    process.send(number)
    await process.logged(f"{number.name}: draining", times=2)
    with pytest.raises(ConnectionRefusedError):
        await process.connect()
    rest.set()
    await finished(streams)
    assert await process.ended() == 0
    await gone(*pids)
    assert not is_there(directory)


async def test_ctrl_c_in_a_terminal_is_one_signal_and_not_two(process: Process, upstream: Upstream) -> None:
    """A terminal sends it to every process of the group."""
    assert all(os.getpgid(pid) != os.getpgid(process.pid) for pid in workers(process))


async def test_a_second_signal_ends_them_all_at_once(process: Process, upstream: Upstream) -> None:
    pids = workers(process)
    directory = metrics_of(pids[0])
    half_open(upstream)
    await begun(process, 4)
    process.send(signal.SIGTERM)
    await process.logged("draining", times=2)
    process.send(signal.SIGTERM)
    assert await process.ended() == 128 + signal.SIGTERM
    await gone(*pids)
    assert not is_there(directory)


async def test_a_reload_reaches_every_worker_and_cuts_no_stream(process: Process, upstream: Upstream) -> None:
    rest = half_open(upstream)
    streams = await begun(process, 20)
    one, other = workers(process)
    fresh = '[[keys]]\nname = "desk"\nkey = "sk-another-key"\n'
    for _ in range(3):
        await process.reload(two(upstream, keys=[]) + fresh, "in 2 workers")
    for pid, second in ((one, other), (other, one)):
        with only(pid, second):
            assert (await chat(await process.connect(), KEY)).status == 401
    assert workers(process) == [one, other]
    rest.set()
    await finished(streams)


async def test_a_broken_file_is_told_once_and_changes_nothing(process: Process, upstream: Upstream) -> None:
    line = await process.reload(two(upstream, "[timeouts]\nidel = 1"), "not reloaded")
    assert 'unknown setting \\"idel\\"' in line
    await process.reload(two(upstream), "in 2 workers")  # whatever a worker had to say, it has said by now
    assert len(process.said("not reloaded")) == 1


async def test_an_upgrade_cuts_no_stream(process: Process, upstream: Upstream) -> None:
    old = workers(process)
    rest = half_open(upstream)
    streams = await begun(process, 20)
    process.send(signal.SIGUSR2)
    await process.logged("2 workers new: the old ones drain")
    await process.logged("SIGTERM: draining", times=2)
    fresh = workers(process)[2:]
    assert len(fresh) == 2
    rest.set()
    await finished(streams)
    await gone(*old)
    upstream.script = ordinary()
    assert (await chat(await process.connect())).status == 200
    process.send(signal.SIGTERM)
    assert await process.ended() == 0
    await gone(*fresh)


async def test_an_upgrade_that_does_not_start_changes_nothing(process: Process, upstream: Upstream) -> None:
    old = workers(process)
    process.rewrite(two(upstream, "[timeouts]\nidel = 1"))
    process.send(signal.SIGUSR2)
    await process.logged("a new worker ended with exit code 2; the old ones serve on")
    assert (await chat(await process.connect())).status == 200
    assert workers(process) == old


async def test_the_end_in_the_middle_of_an_upgrade_ends_them_all(process: Process, upstream: Upstream) -> None:
    rest = half_open(upstream)
    streams = await begun(process, 4)
    process.send(signal.SIGUSR2)
    await process.logged("from the code on disk")
    process.send(signal.SIGTERM)
    await process.logged("SIGTERM: passed on")
    rest.set()
    await finished(streams)
    assert await process.ended() == 0


# Workers that do not start...


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    with launched(tmp_path, SHARED) as launch:
        yield launch


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        pytest.param("raise SystemExit(2)", 2, "", id="the-worker-has-said-why"),
        pytest.param(
            "raise SystemExit(3)", 1, "the workers do not start: one ended with exit code 3\n", id="another-code"
        ),
        pytest.param("os.kill(os.getpid(), 9)", 1, "the workers do not start: one was ended by SIGKILL\n", id="killed"),
    ],
)
async def test_workers_that_do_not_start_at_all_are_not_tried_again(
    launch: Launch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    program: str,
    code: int,
    said: str,
) -> None:
    instead(monkeypatch, program)
    assert await supervisor.Supervisor(launch).run() == code
    assert capsys.readouterr().err == said
