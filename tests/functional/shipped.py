"""A gateway with the shipped ``config.toml``: its models and defaults, with every provider that needs a secret
standing at the fake upstream."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.serving import Server
from proxy.settings import load

from . import KEY, Gateway
from .wire import listener

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .upstream import Upstream

ROOT = Path(__file__).parent.parent.parent

#: What the providers are shown; nothing of it may reach a client or a log.
SECRETS = {
    "DEEPSEEK_API_KEY": "sk-deepseek-secret",
    "CLOUDFLARE_API_TOKEN": "cloudflare-secret",
    "CLOUDFLARE_ACCOUNT_ID": "0123456789abcdef",
}
KEYS = f"""
[[keys]]
name = "laptop"
key = "{KEY}"
"""


def text(url: str, *, closed: bool = True) -> str:
    """The shipped file with its providers at ``url``, each where its own address would be below its host."""
    shipped = (ROOT / "config.toml").read_text()
    for secret, path in (
        ("DEEPSEEK_API_KEY", ""),
        ("CLOUDFLARE_API_TOKEN", "/client/v4/accounts/{account_id}/ai"),
    ):
        shipped, count = re.subn(f'api_key = "env:{secret}"\n', f'\\g<0>base_url = "{url}{path}"\n', shipped)
        assert count == 1, f"{secret} is not once in config.toml"
    return shipped + (KEYS if closed else "")


async def start(
    directory: Path,
    upstream: Upstream,
    *,
    closed: bool = True,
    without: Iterable[str] = (),
    replace: tuple[str, str] | None = None,
) -> Gateway:
    """Serve it; ``closed`` has one key.  ``without`` names secrets that are not set, ``replace`` changes the file."""
    told = text(upstream.url, closed=closed)
    if replace is not None:
        assert told.count(replace[0]) == 1
        told = told.replace(*replace)
    (directory / "config.toml").write_text(told)
    environ = {name: value for name, value in SECRETS.items() if name not in set(without)}
    settings = load(directory / "config.toml", environ).settings
    before = asyncio.all_tasks()
    gateway = Gateway(await Server.start(settings, sock=listener()), settings, directory, upstream.url)
    gateway.before = before
    asyncio.get_running_loop().set_exception_handler(lambda _, context: gateway.complaints.append(context))
    return gateway
