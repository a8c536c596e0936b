"""``[[providers]]``: references resolved, addresses in one form, and what each kind needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from proxy.settings.faults import SettingsError, quoted, within
from proxy.settings.reading import read, seconds
from proxy.settings.references import References, Secret, Unresolved, is_reference
from proxy.settings.schema import ATTEMPT_CLOCKS, Endpoint, Names, Provider, ProviderKind, Timeouts
from proxy.settings.tls import tls

if TYPE_CHECKING:
    from collections.abc import Mapping

BASE_URLS: dict[str, str] = {
    "openai": "https://api.openai.com",
    "deepseek": "https://api.deepseek.com",
    "workers-ai": "https://api.cloudflare.com/client/v4/accounts/{account_id}/ai",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "ollama": "http://127.0.0.1:11434",
    "demo": "",  # answers inside this program
}
KEYLESS = frozenset({"ollama", "demo"})
#: Kinds that can be asked in more than one API, and the words for them.
ENDPOINTS: dict[str, tuple[Endpoint, ...]] = {"workers-ai": ("openai", "native"), "openai": ("openai", "responses")}

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")
#: They say where a message ends or who is asked; a second opinion would break the connection.
OUR_HEADERS = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "proxy-connection"}
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)
#: Without them there is no request to send.
NEVER_DROPPED = frozenset({"model", "messages", "stream"})


class ProviderTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ``[[providers]]`` table as it is written."""

    name: str
    kind: ProviderKind
    base_url: str | None = None
    api_key: str | None = None
    account_id: str = ""
    endpoint: Endpoint = "openai"
    headers: dict[str, Any] = {}
    timeouts: dict[str, Any] = {}
    tls: dict[str, Any] = {}
    ask_usage: bool = True
    responses: bool | None = None
    drop: Names = ()


def provider(raw: Mapping[str, Any], references: References) -> Provider:
    """The provider; not enabled where a reference leads nowhere."""
    table = read(raw, ProviderTable, references=("api_key", "account_id"))
    _check(table)
    missing: list[str] = []
    api_key = account_id = ""
    headers: dict[str, str] = {}
    with within("api_key"):
        if table.api_key is not None:
            try:
                api_key = references.secret(table.api_key)
            except Unresolved as exc:
                missing.append(f"api_key: {exc}")
    with within("account_id"):
        if table.account_id:
            try:
                account_id = _account(references.secret(table.account_id))
            except Unresolved as exc:
                missing.append(f"account_id: {exc}")
    with within("headers"):
        for name, value in _header_texts(table.headers):
            with within(quoted(name)):
                try:
                    headers[name] = _header_value(references.text(value))
                except Unresolved as exc:
                    missing.append(f"headers: {quoted(name)}: {exc}")
    with within("base_url"):
        base_url = _base_url(table)
    with within("timeouts"):
        timeouts = seconds(table.timeouts, Timeouts, ATTEMPT_CLOCKS)
    with within("tls"):
        trusted = tls(table.tls, base_url, references)
    _check_needs(table, base_url)
    return Provider(
        name=table.name,
        kind=table.kind,
        base_url=base_url.replace("{account_id}", account_id) if account_id else base_url,
        api_key=Secret(api_key),
        account_id=account_id,
        endpoint=table.endpoint,
        headers=headers,
        timeouts=timeouts,
        tls=trusted,
        ask_usage=table.ask_usage,
        responses=_speaks_responses(table, base_url),
        drop=table.drop,
        enabled=not missing,
        reason="; ".join(missing),
    )


def _check(table: ProviderTable) -> None:
    if not re.fullmatch(r"[!-~]{1,64}", table.name):  # it travels in `x-proxy-provider`
        raise SettingsError("name: must be 1 to 64 visible ASCII characters without spaces")
    _check_endpoint(table)
    if table.responses and table.kind != "openai":
        raise SettingsError('responses: is for kind "openai" only')
    for field in table.drop:
        if not field or field in NEVER_DROPPED:
            raise SettingsError(f"drop: {quoted(field)} cannot be left out of a request")


def _check_endpoint(table: ProviderTable) -> None:
    words = ENDPOINTS.get(table.kind, ("openai",))
    if table.endpoint not in words:
        accepted = " or ".join(map(quoted, words))
        theirs = next(kind for kind, known in ENDPOINTS.items() if table.endpoint in known)
        mend = f"leave it out, or change kind to {quoted(theirs)}"
        raise SettingsError(
            f"endpoint: {quoted(table.endpoint)} is for kind {quoted(theirs)}; kind {quoted(table.kind)} "
            f"takes {accepted}: {mend}"
        )
    if table.endpoint == "responses" and table.responses is False:
        raise SettingsError('responses: false contradicts endpoint = "responses"; leave one of them out')


def _check_needs(table: ProviderTable, base_url: str) -> None:
    own_address = base_url != BASE_URLS[table.kind]
    if table.api_key is None and table.kind not in KEYLESS and not own_address:
        raise SettingsError('api_key: is missing; give "env:NAME", "file:PATH" or "credential:NAME"')
    if "{account_id}" in base_url and not table.account_id:
        raise SettingsError(
            'account_id: is missing; base_url has a place for it (account_id = "env:CLOUDFLARE_ACCOUNT_ID")'
        )


def _speaks_responses(table: ProviderTable, base_url: str) -> bool:
    if table.responses is not None:
        return table.responses
    if table.endpoint == "responses":
        return True
    return table.kind == "openai" and urlsplit(base_url).hostname == "api.openai.com"


def _account(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):  # it becomes a part of the path
        raise SettingsError("may only have letters, digits, - and _")
    return value


# Headers...


def _header_texts(headers: dict[str, Any]) -> list[tuple[str, str]]:
    seen: set[str] = set()
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise SettingsError(f"{quoted(name)} is not the name of a header")
        if name.lower() in OUR_HEADERS:
            raise SettingsError(f"{quoted(name)} is set by the gateway itself")
        if name.lower() in seen:
            raise SettingsError(f"{quoted(name)} is there twice")
        seen.add(name.lower())
        if not isinstance(value, str):
            raise SettingsError(f"{quoted(name)}: expected a string")
    return list(headers.items())


def _header_value(value: str) -> str:
    if not HEADER_VALUE.fullmatch(value):
        raise SettingsError("must be printable ASCII on one line, without spaces at its ends")
    return value


# Addresses...


def _base_url(table: ProviderTable) -> str:
    if table.kind == "demo":
        if table.base_url:
            raise SettingsError("the demo answers inside this program and has no address")
        return ""
    if table.base_url is None or table.base_url == "":
        return BASE_URLS[table.kind]
    version = "/v1beta" if table.kind == "gemini" else "/v1"
    url = web_address(table.base_url, braces=table.kind == "workers-ai").removesuffix(version)
    return url.rstrip("/")


def web_address(text: str, *, braces: bool = False) -> str:
    """An http(s) URL without anything that is not an address, scheme and host in small letters, no slash at its end.

    ``braces``: ``{account_id}`` may stand in the path.
    """
    if is_reference(text):
        raise SettingsError("references are understood in secrets only, not here")
    allowed = text.replace("{account_id}", "account_id") if braces else text
    if not re.fullmatch(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~%-]+", allowed):
        raise SettingsError("has characters that do not belong into a URL")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise SettingsError(f"is not a URL: {exc}") from None
    if parts.scheme not in {"http", "https"}:
        raise SettingsError("must begin with https:// or http://")
    if not host:
        raise SettingsError("names no host")
    if "@" in parts.netloc:
        raise SettingsError("must not have credentials in it")
    if "?" in text or "#" in text:
        raise SettingsError("must not have a query or a fragment")
    path = parts.path.rstrip("/")
    if any(segment in {"", ".", ".."} for segment in path.split("/")[1:]):
        raise SettingsError("has an empty, . or .. segment in its path")
    return urlunsplit((parts.scheme, parts.netloc.lower(), path, "", ""))
