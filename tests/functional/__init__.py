"""The whole gateway between a raw client (``wire``) and a fake provider (``upstream``), on real sockets.

``Gateway`` and ``config`` are what the ``gateway`` fixture is made of.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import tomllib
from datetime import date
from typing import TYPE_CHECKING, Any, Self

from . import wire
from .upstream import TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aiohttp import web

    from proxy.serving import Server
    from proxy.settings import Settings

#: The client's key and the provider's; neither must ever show up on the other side.
KEY = "sk-test-key"
UPSTREAM_KEY = "sk-upstream-secret"

#: The smallest closed gateway: one key, one provider, one model.
CONFIG = f"""
[[keys]]
name = "laptop"
key = "{KEY}"

[[providers]]
name = "up"
kind = "openai"
base_url = "{{url}}"
api_key = "{UPSTREAM_KEY}"

[[models]]
id = "m"
provider = "up"
"""

#: Seconds for tasks that have been cancelled to notice it, before they count as left behind.
LAST_TURNS = 2.0

#: By which field the tables of a list are told apart.
IDENTITY = {"keys": "name", "providers": "name", "models": "id"}


def config(url: str, text: str = "", **tables: Any) -> str:
    """``CONFIG`` with the provider at ``url``, changed by TOML text and then by keyword tables.

    Tables are merged setting by setting; so are list entries of the same name or id, and others are added.
    An empty list (``keys = []``) removes what was there.  ``{url}`` in the text is the provider's.
    """
    told = tomllib.loads(CONFIG.replace("{url}", url))
    for change in (tomllib.loads(text.replace("{url}", url)), tables):
        for name, value in change.items():
            told[name] = _merged(name, told.get(name), value)
    return "".join(_table(name, value) for name, value in told.items())


def _merged(name: str, old: Any, new: Any) -> Any:
    if isinstance(new, dict):
        return {**(old or {}), **new}
    if not isinstance(new, list) or not new:
        return new
    entries = {entry[IDENTITY[name]]: entry for entry in old or []}
    for entry in new:
        before = entries.get(entry[IDENTITY[name]], {})
        if "deployments" in entry:  # they stand in place of the shorthand
            before = {key: value for key, value in before.items() if key not in {"provider", "upstream"}}
        entries[entry[IDENTITY[name]]] = {**before, **entry}
    return list(entries.values())


def _table(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"[{name}]\n" + _settings(value)
    return "".join(f"[[{name}]]\n{_settings(entry)}" for entry in value)


def _settings(table: Mapping[str, Any]) -> str:
    return "".join(f"{_toml(name)} = {_toml(value)}\n" for name, value in table.items())


def _toml(value: Any) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case date():
            return value.isoformat()
        case _:
            return jsonlib.dumps(value)  # numbers, booleans and text are the same in TOML


class Gateway:
    """The real application on a real socket, started as ``serve`` does, and asked over the wire.

    Connections that it opens are its own: ``close`` leaves them all.
    """

    def __init__(self, server: Server, settings: Settings, directory: Path, url: str) -> None:
        self.server = server
        self.settings = settings
        self.port: int = server.port
        self.url = f"http://127.0.0.1:{self.port}"
        #: Tasks that ran before the gateway did, so that they are none of its leaks.
        self.before: set[asyncio.Task[Any]] = set()
        #: What the event loop would have logged: unretrieved exceptions, broken callbacks.
        self.complaints: list[dict[str, Any]] = []
        self._stopped = False
        self._directory = directory
        self._upstream_url = url
        self._connections: list[wire.Connection] = []

    @classmethod
    async def start(
        cls,
        directory: Path,
        url: str,
        text: str = "",
        *,
        environ: Mapping[str, str] | None = None,
        **tables: Any,
    ) -> Self:
        """Serve ``config(url, text, **tables)`` on a free loopback port; the file lies in ``directory``."""
        from proxy.serving import Server

        loop, before = asyncio.get_running_loop(), asyncio.all_tasks()
        complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        settings = _load(directory, config(url, text, **tables), environ or {})
        gateway = cls(await Server.start(settings, sock=wire.listener()), settings, directory, url)
        gateway.before, gateway.complaints = before, complaints
        return gateway

    def swap(self, text: str = "", *, environ: Mapping[str, str] | None = None, **tables: Any) -> None:
        """New settings for every request that starts after, as SIGHUP does."""
        self.settings = _load(self._directory, config(self._upstream_url, text, **tables), environ or {})
        self.server.swap(self.settings)

    @property
    def app(self) -> web.Application:
        return self.server.app

    @property
    def live(self) -> int:
        """Exchanges in flight."""
        return self.server.gateway.live

    async def idle(self) -> None:
        """Wait until no exchange is in flight."""
        await wire.within(self.server.gateway.idle(), f"an idle gateway ({self.live} exchanges live)")

    # Asking

    async def connect(self, *, receive_buffer: int | None = None) -> wire.Connection:
        connection = await wire.connect(self.port, receive_buffer=receive_buffer)
        self._connections.append(connection)
        return connection

    async def request(
        self,
        method: str,
        target: str,
        *,
        key: str | None = KEY,
        headers: wire.Headers = (),
        json: Any = None,
        body: bytes | None = None,
        connection: wire.Connection | None = None,
    ) -> wire.Answer:
        """Ask on a connection of its own, or a given one; returns when the answer's head is in."""
        connection = connection or await self.connect()
        return await connection.ask(method, target, headers=authorized(key, headers), json=json, body=body)

    async def chat(
        self,
        prompt: str = "Hi",
        *,
        path: str = "/v1/chat/completions",
        key: str | None = KEY,
        headers: wire.Headers = (),
        connection: wire.Connection | None = None,
        **fields: Any,
    ) -> wire.Answer:
        """One chat request to model ``m``; ``fields`` are top-level fields of the body (``stream=True``)."""
        body = chat_body(prompt, **fields)
        return await self.request("POST", path, key=key, headers=headers, json=body, connection=connection)

    async def ask_chat(self, prompt: str = "Hi", *, key: str | None = KEY, **fields: Any) -> wire.Connection:
        """The same without waiting for an answer: the connection, to be read, dropped or aborted."""
        connection = await self.connect()
        body = chat_body(prompt, **fields)
        await connection.request("POST", "/v1/chat/completions", headers=authorized(key), json=body)
        return connection

    # Leaving

    async def stop(self, drain: float = 0) -> None:
        """Stop as SIGTERM does, ``drain`` in seconds; a second time does nothing."""
        if not self._stopped:
            self._stopped = True
            await wire.within(self.server.stop(drain), "the gateway's stop")

    async def close(self) -> None:
        """Leave every connection, stop, and see that nothing is left behind.  Raises ``AssertionError``."""
        for connection in self._connections:
            connection.close()
        try:
            await self.idle()
        finally:
            await self.stop()
        tasks = {task for task in asyncio.all_tasks() - self.before if not task.get_name().startswith(TASKS)}
        tasks.discard(asyncio.current_task())
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_TURNS)
        assert not (leaked := [task for task in tasks if not task.done()]), f"tasks left behind: {leaked}"
        assert not self.complaints, f"the event loop complained: {self.complaints}"


def _load(directory: Path, text: str, environ: Mapping[str, str]) -> Settings:
    from proxy.settings import load

    path = directory / "config.toml"
    path.write_text(text)
    return load(path, environ).settings


def authorized(key: str | None, headers: wire.Headers = ()) -> list[tuple[str, str]]:
    """These headers, and the key as a bearer token if there is one."""
    return [*([("Authorization", f"Bearer {key}")] if key is not None else []), *wire.pairs(headers)]


def chat_body(prompt: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **fields}
