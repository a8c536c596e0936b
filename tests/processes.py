"""Real gateway processes for tests: ``python -m proxy serve``, started and ended as an operator does.

    async with serving(tmp_path, config(upstream.url)) as process:
        process.send(signal.SIGHUP)
        await process.logged("reloaded")
        client = await connect(process.port)

Waiting is always for something that the process says or does; the deadline only guards against hanging.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from proxy import sockets
from proxy.launch import Launch
from proxy.settings import Overrides, load
from tests.functional import KEY, authorized, chat_body, config
from tests.functional.upstream import conversation, gated_stream
from tests.functional.wire import connect, contents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from tests.functional.upstream import Upstream
    from tests.functional.wire import Answer, Connection

#: Seconds that a process may take to start or to end, on a machine that has other things to do.
PATIENCE = 60.0
ROOT = Path(__file__).parent.parent


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


class Process:
    """One ``serve``, and everything that it has said."""

    def __init__(self, process: asyncio.subprocess.Process, config: Path) -> None:
        self.config = config
        #: Lines of stderr, where the log goes, and of stdout, where nothing should.
        self.err: list[str] = []
        self.out: list[str] = []
        self._process = process
        self._said = asyncio.Condition()
        self._connections: list[Connection] = []
        assert process.stderr
        assert process.stdout
        self._pumps = [
            asyncio.create_task(self._pump(stream, lines), name="test: output of a gateway")
            for stream, lines in ((process.stderr, self.err), (process.stdout, self.out))
        ]

    @classmethod
    async def start(
        cls,
        directory: Path,
        text: str,
        *flags: str,
        environ: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
        program: Sequence[str] = (sys.executable, "-m", "proxy", "serve"),
    ) -> Self:
        """Start it with the configuration ``text`` in ``directory``; nobody waits for anything yet."""
        path = directory / "config.toml"
        path.write_text(text)
        process = await asyncio.create_subprocess_exec(
            *program,
            "--config",
            str(path),
            *flags,
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "error", "TMPDIR": str(directory), **(environ or {})},
            pass_fds=descriptors,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(process, path)

    async def _pump(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            async with self._said:
                lines.append(line.decode().rstrip("\n"))
                self._said.notify_all()
        async with self._said:
            self._said.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        """Where it listens, as its start line says."""
        for line in self.err:
            if found := re.search(r"listening on http://(?:\[\S+?\]|[^\s:]+):(\d+)", line):
                return int(found[1])
        raise AssertionError(f"it has not said where it listens: {self.err}")

    async def serves(self) -> Self:
        """Wait until it says that it serves."""
        await self.logged("listening on")
        return self

    async def connect(self, host: str = "127.0.0.1", *, receive_buffer: int | None = None) -> Connection:
        """A connection that is closed at the end, if nobody has closed it before."""
        self._connections.append(await connect(self.port, host, receive_buffer=receive_buffer))
        return self._connections[-1]

    # What it says...

    async def logged(self, text: str, times: int = 1) -> str:
        """Wait until ``times`` lines of the log contain ``text``; returns the last of them."""

        def found() -> list[str]:
            return [line for line in self.err if text in line]

        async with asyncio.timeout(PATIENCE), self._said:
            while len(found()) < times:
                if all(pump.done() for pump in self._pumps):
                    break
                await self._said.wait()
        assert len(found()) >= times, f"{text!r} is not {times} times in {self.err}"
        return found()[times - 1]

    def said(self, text: str) -> list[str]:
        """Lines so far, of either stream, that contain ``text``."""
        return [line for line in (*self.err, *self.out) if text in line]

    def rewrite(self, text: str) -> None:
        """Change the file, as an editor does; nobody is told."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.config)

    async def reload(self, text: str, word: str = "reloaded") -> str:
        """Change the file, send SIGHUP and wait for what is said about it; returns that line."""
        before = len(self.said(word))
        self.rewrite(text)
        self.send(signal.SIGHUP)
        return await self.logged(word, before + 1)

    # How it ends...

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        async with asyncio.timeout(PATIENCE):
            code = await self._process.wait()
            await asyncio.gather(*self._pumps)
        return code

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def close(self) -> None:
        """End it however it is, and leave its connections."""
        for connection in self._connections:
            connection.close()
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self.ended()


@contextlib.asynccontextmanager
async def serving(directory: Path, text: str, *flags: str, **how: object) -> AsyncIterator[Process]:
    """A process that serves on a free port; killed at the end if it still runs."""
    process = await Process.start(directory, text, *(flags or ("--port", "0")), **how)  # type: ignore[arg-type]
    try:
        yield await process.serves()
    finally:
        await process.close()


@contextlib.contextmanager
def launched(directory: Path, text: str = "") -> Iterator[Launch]:
    """What a process would have been started with: a configuration, and a socket on a free port."""
    path = directory / "config.toml"
    path.write_text(config("http://127.0.0.1:9", text))
    listening = sockets.bind("127.0.0.1", 0)
    yield Launch(config=path, overrides=Overrides(), settings=load(path, {}).settings, sockets=listening)
    sockets.close(listening)


class NotifySocket:
    """systemd's side of ``NOTIFY_SOCKET``: what a service has said, message by message."""

    def __init__(self, path: Path) -> None:
        self.environ = {"NOTIFY_SOCKET": str(path)}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.setblocking(False)

    async def message(self) -> dict[str, str]:
        """The next message that is more than a sign of life."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            while True:
                lines = (await loop.sock_recv(self._sock, 4096)).decode().splitlines()
                told = dict(line.split("=", 1) for line in lines)
                if "WATCHDOG" not in told:
                    return told

    def close(self) -> None:
        self._sock.close()


# Streams through a process...


async def chat(client: Connection, key: str = KEY, **fields: Any) -> Answer:
    return await client.ask("POST", "/v1/chat/completions", headers=authorized(key), json=chat_body(**fields))


async def begun(process: Process, number: int = 1) -> list[Answer]:
    """Streams that have brought their first word, "a", to their clients."""

    async def one() -> Answer:
        answer = await chat(await process.connect(), stream=True)
        assert answer.status == 200, await answer.rest()
        while (frame := await answer.event()) is not None and frame.content != "a":
            pass
        assert frame is not None
        return answer

    return list(await asyncio.gather(*(one() for _ in range(number))))


async def finished(answers: list[Answer]) -> None:
    """The rest of these streams is all there."""
    for answer, frames in zip(answers, await asyncio.gather(*(one.events() for one in answers)), strict=True):
        assert contents(frames) == ["b"]
        assert frames[-1].done
        assert answer.whole


def half_open(upstream: Upstream) -> asyncio.Event:
    """From now on streams say "a", and "b" only after the event."""
    rest = asyncio.Event()
    upstream.script = gated_stream(conversation("a", "b"), [None, None, rest])
    return rest


def file_of(pid: int, name: str) -> str:
    """What the kernel says about a process."""
    return Path(f"/proc/{pid}/{name}").read_text()
