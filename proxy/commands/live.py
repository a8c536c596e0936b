"""``check --live``: ask every provider for its models, or where it has no list, for one token."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from proxy.commands import Failure, web

if TYPE_CHECKING:
    from proxy.settings import Provider, Settings

#: Where each kind lists its models, below the base URL.
LISTS = {
    "openai": "/v1/models",
    "deepseek": "/v1/models",
    "ollama": "/v1/models",
    "anthropic": "/v1/models",
    "gemini": "/v1beta/models",
    "workers-ai": "/models/search",
}
#: What the list is called in the answer: OpenAI's and Anthropic's way, Gemini's, Cloudflare's.
NAMES = ("data", "models", "result")
ANTHROPIC_VERSION = "2023-06-01"

LIST_TIME = 15.0  # seconds
TOKEN_TIME = 120.0  # seconds; a local server may have to load the model first


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How a provider answered; ``said`` is for people and has neither key nor body in it."""

    provider: str
    ok: bool
    said: str
    seconds: float


async def ask_all(settings: Settings) -> list[Finding]:
    """Ask all providers that are on, at the same time."""
    async with web.session() as session:
        enabled = [provider for provider in settings.providers if provider.enabled]
        return await asyncio.gather(*(_ask(session, settings, provider) for provider in enabled))


async def _ask(session: aiohttp.ClientSession, settings: Settings, provider: Provider) -> Finding:
    started = time.monotonic()
    try:
        ok, said = await _answer(session, settings, provider)
    except Failure as exc:
        ok, said = False, str(exc)
    return Finding(provider=provider.name, ok=ok, said=said, seconds=time.monotonic() - started)


async def _answer(session: aiohttp.ClientSession, settings: Settings, provider: Provider) -> tuple[bool, str]:
    if provider.kind == "demo":
        return True, "inside this program"
    connect = provider.timeouts.get("connect", settings.timeouts.connect)
    url = provider.base_url + LISTS[provider.kind]
    timeout = aiohttp.ClientTimeout(total=LIST_TIME, sock_connect=connect)
    async with web.asked(session, "GET", url, timeout=timeout, **_conventions(provider)) as response:
        if response.status in {404, 405} and (model := _some_model(settings, provider)):
            return await _one_token(session, provider, model, connect)
        if response.status != 200:
            return False, _refusal(response.status)
        return _counted(await response.read())


def _conventions(provider: Provider) -> dict[str, Any]:
    """What each request to this provider has, in aiohttp's words."""
    own = {"ssl": provider.tls.context()} if any(provider.tls) else {}
    return {"headers": _headers(provider), **own}


def _headers(provider: Provider) -> dict[str, str]:
    """How this kind wants to see the key, and what the configuration adds."""
    key = provider.api_key.reveal()
    headers = {"Accept": "application/json"}
    if provider.kind == "anthropic":
        headers |= {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION}
    elif provider.kind == "gemini":
        headers["x-goog-api-key"] = key
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    own = {name.lower() for name in provider.headers}
    return {name: value for name, value in headers.items() if value and name.lower() not in own} | provider.headers


def _counted(body: bytes) -> tuple[bool, str]:
    try:
        answer: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False, "answered 200, but not with JSON; is base_url the API's address?"
    for name in NAMES:
        if isinstance(answer, dict) and isinstance(answer.get(name), list):
            number = len(answer[name])
            return True, f"{number} model{'' if number == 1 else 's'}"
    return False, "answered 200, but not with a list of models"


def _refusal(status: int) -> str:
    # Not the body: a provider that refuses a key may quote it.
    what = web.status_line(status)
    if status in {401, 403}:
        return f"refused the key: {what}"
    if 300 <= status < 400:
        return f"redirects: {what}; is base_url the API's address?"
    return f"answered {what}"


# One token...


def _some_model(settings: Settings, provider: Provider) -> str | None:
    """A name that this provider should know; only those that speak OpenAI's dialect are asked this way."""
    if provider.kind not in {"openai", "deepseek", "ollama", "workers-ai"} or provider.endpoint == "native":
        return None
    deployments = (each for model in settings.models for each in model.deployments)
    return next((each.upstream for each in deployments if each.provider == provider.name and each.upstream), None)


async def _one_token(
    session: aiohttp.ClientSession, provider: Provider, model: str, connect: float
) -> tuple[bool, str]:
    path, body, said = _least(provider, model)
    url = provider.base_url + path
    timeout = aiohttp.ClientTimeout(total=TOKEN_TIME, sock_connect=connect)
    async with web.asked(session, "POST", url, json=body, timeout=timeout, **_conventions(provider)) as response:
        if response.status != 200:
            return False, _refusal(response.status)
        await response.read()
        return True, f"{said} of {model}"


def _least(provider: Provider, model: str) -> tuple[str, dict[str, Any], str]:
    """The path and the body of the smallest request there is, and what it asks for."""
    if provider.endpoint == "responses":
        body: dict[str, Any] = {"input": "Hi", "max_output_tokens": 16, "store": False}  # fewer are refused
        return "/v1/responses", {"model": model, **body}, "a few tokens"
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    return "/v1/chat/completions", {"model": model, **body}, "one token"
