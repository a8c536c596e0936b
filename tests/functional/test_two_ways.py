"""A request is answered alike whichever way it takes: past aiohttp, past its application, or through all of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from . import KEY, UPSTREAM_KEY, authorized
from .upstream import (
    Gate,
    broken,
    chunk,
    completion,
    conversation,
    fault,
    gated_stream,
    held,
    hung_up,
    ordinary,
    refusal,
    silent,
    sse,
    stream,
    whole,
)
from .ways import WAYS, watch
from .wire import Cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Gateway
    from .upstream import Script, Upstream
    from .wire import Answer, Connection

CHAT = "/v1/chat/completions"
PAGE = "https://app.example.org"
ADMIN = "sk-admin-key"
SAID: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
#: What is another each time: ids, moments, how long something took.
CHANGING = [
    (re.compile(rb"\b([a-z]+[_-])[0-9a-f]{16,}\b"), rb"\1ID"),
    (re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z"), b"TIME"),
    (re.compile(rb'("(?:created|completed)(?:_at)?":)\d+(\.\d+)?'), rb"\1TIME"),
    (re.compile(rb"dur=[\d.]+"), b"dur=N"),
]


class Told(NamedTuple):
    """An answer, without what is another each time and the order of its fields."""

    version: str
    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes
    outcome: str | None
    #: What becomes of the next request on its connection.
    next: int | str


@dataclass(frozen=True)
class Case:
    """What is asked of which gateway, in front of what provider."""

    status: int
    path: str = CHAT
    #: An object to be sent as JSON, or bytes.
    body: Any = field(default_factory=lambda: SAID)
    headers: Any = field(default_factory=dict)
    key: str | None = KEY
    script: Callable[[], Script] = ordinary
    settings: dict[str, Any] = field(default_factory=dict)
    #: How often it is asked; the last answer has ``status``.
    times: int = 1
    #: Somebody else's stream is running meanwhile.
    busy: bool = False
    #: The shortest way that is open to it.
    way: str = "lane"


def unchanging(data: bytes) -> bytes:
    for pattern, word in CHANGING:
        data = pattern.sub(word, data)
    return data


async def tell(answer: Answer) -> Told:
    body = await answer.rest()
    fields = [(name.lower(), unchanging(value.encode()).decode()) for name, value in answer.headers]
    told = [(name, "DATE" if name == "date" else value) for name, value in sorted(fields)]
    end = await goes_on(answer.connection)
    return Told(answer.version, answer.status, answer.reason, told, unchanging(body), answer.outcome, end)


async def goes_on(client: Connection) -> int | str:
    """Ask something else on the same connection."""
    try:
        return (await client.ask("GET", "/nowhere")).status
    except (Cut, ConnectionError):
        return "closed"


def request_of(case: Case) -> tuple[bytes, list[tuple[str, str]]]:
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    headers = authorized(case.key, case.headers)
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    return body, [(name, value) for name, value in headers if value is not None]


async def ask(gateway: Gateway, case: Case) -> list[Told]:
    body, headers = request_of(case)
    told = []
    for _ in range(case.times):
        client = await gateway.connect()
        told.append(await tell(await client.ask("POST", case.path, headers=headers, body=body)))
        if not case.busy:
            await gateway.idle()
    return told


def log_lines(text: str) -> list[dict[str, Any]]:
    """The access log, without what is another each time."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        line["request_id"] = unchanging(line["request_id"].encode()).decode()
        for name in ("time", "ttfb_ms", "duration_ms"):
            line[name] = line[name] is not None
    return lines


def metrics(gateway: Gateway) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Everything that was counted; how long it took is another each time."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(gateway.server.gateway.metrics.text().decode())
        for sample in family.samples
        if not sample.name.endswith(("_sum", "_bucket")) and "_gap_" not in sample.name
    }


class Seen(NamedTuple):
    """All that can be seen of a request."""

    told: list[Told]
    asked: list[tuple[str, list[tuple[str, str]], bytes]]
    logged: list[dict[str, Any]]
    counted: dict[Any, float]


async def see(upstream: Upstream, gateway: Callable[..., Any], capfd: Any, case: Case) -> Seen:
    one = await gateway(**case.settings)
    known = len(upstream.calls)
    if case.busy:
        gate = Gate()
        upstream.script = gated_stream(conversation("a"), gate)
        gate.open()
        running = await one.chat(stream=True)
        assert await running.frame()
    upstream.script = case.script()
    told = await ask(one, case)
    if case.busy:
        gate.open_all()
        await running.rest()
    await one.idle()
    counted = metrics(one)
    await one.stop()
    asked = [(call.target, sorted(call.headers), call.body) for call in upstream.calls[known:]]
    return Seen(told, asked, log_lines(capfd.readouterr().err), counted)


# What is asked...


STREAMED = {**SAID, "stream": True}
LISTED = {"cors": {"origins": [PAGE]}}
QUICK = {"timeouts": {"first_byte": 0.05, "total": 0.05, "idle": 0.05}}
NO_TYPE = {"Content-Type": None}


def laptop(**limits: Any) -> dict[str, Any]:
    return {"keys": [{"name": "laptop", **limits}]}


def error_in(kind: str) -> Script:
    return stream([chunk("a"), fault(f"it {kind}, says {UPSTREAM_KEY}")])


CASES = {
    # Whole answers
    "chat-completions": Case(200),
    "without-v1": Case(200, "/chat/completions"),
    "with-two-v1": Case(200, "/v1/v1/chat/completions"),
    "completions": Case(200, "/v1/completions", {"model": "m", "prompt": "Hi"}),
    "embeddings": Case(200, "/v1/embeddings", {"model": "m", "input": "Hi"}),
    "chat": Case(200, "/chat"),
    "api-chat": Case(200, "/api/chat", {"prompt": "Hi", "stream": False}),
    "messages": Case(200, "/v1/messages", {**SAID, "max_tokens": 9}),
    "count-tokens": Case(200, "/v1/messages/count_tokens", SAID),
    "responses": Case(200, "/v1/responses", {"model": "m", "input": "Hi"}),
    "a-charset": Case(200, headers={"Content-Type": "application/json; charset=utf-8"}),
    "an-id": Case(200, headers={"X-Request-ID": "abc-123"}),
    "no-id-to-speak-of": Case(200, headers={"X-Request-ID": "a b"}),
    "a-key-in-another-field": Case(200, key=None, headers={"x-api-key": KEY}),
    "nobody-in-particular": Case(200, key=None, settings={"auth": {"anonymous": True}}),
    "the-providers-fields": Case(
        200,
        script=lambda: whole(
            headers={
                "Content-Type": "application/json",
                "openai-version": "2020-10-01",
                "x-request-id": "theirs",
                "x-ratelimit-limit-requests": "5000",
                "Set-Cookie": "a=b",
            }
        ),
    ),
    "our-limits": Case(200, settings=laptop(requests_per_minute=9, tokens_per_minute=900), times=2),
    "a-large-answer": Case(200, script=lambda: whole(completion("x" * 300_000))),
    # Streams
    "a-stream": Case(200, body=STREAMED),
    "a-stream-with-usage": Case(200, body={**STREAMED, "stream_options": {"include_usage": True}}),
    "a-stream-of-chat": Case(200, "/chat", headers={"Accept": "text/event-stream"}),
    "a-stream-of-api-chat": Case(200, "/api/chat", {"prompt": "Hi"}),
    "a-stream-of-messages": Case(200, "/v1/messages", {**STREAMED, "max_tokens": 9}),
    "a-stream-of-responses": Case(200, "/v1/responses", {"model": "m", "input": "Hi", "stream": True}),
    "json-for-a-stream": Case(200, body=STREAMED, script=whole),
    "a-large-stream": Case(200, body=STREAMED, script=lambda: stream(conversation(*["x" * 900] * 200))),
    "an-error-in-a-stream": Case(200, body=STREAMED, script=lambda: error_in("broke")),
    "an-error-in-a-stream-of-api-chat": Case(200, "/api/chat", {"prompt": "Hi"}, script=lambda: error_in("broke")),
    "an-error-in-a-stream-of-messages": Case(200, "/v1/messages", STREAMED, script=lambda: error_in("broke")),
    "a-broken-stream": Case(200, body=STREAMED, script=lambda: broken([chunk("a")])),
    "a-stream-that-falls-silent": Case(200, body=STREAMED, script=lambda: held([chunk("a")]), settings=QUICK),
    "a-stream-without-an-end": Case(200, body=STREAMED, script=lambda: stream([sse(chunk("a"))])),
    # Refused before anything was read
    "no-key": Case(401, key=None, way="application"),
    "a-wrong-key": Case(401, key="sk-wrong", way="application"),
    "a-wrong-key-for-messages": Case(401, "/v1/messages", key="sk-wrong", way="application"),
    "an-expired-key": Case(401, settings=laptop(expires=date(2001, 1, 1)), way="application"),
    "no-path": Case(404, "/v1/nowhere", way="application"),
    "the-text-of-a-pattern": Case(405, "/v1beta/models/{call:.+:[A-Za-z]+}", way="application"),
    "no-method": Case(405, "/v1/models", way="application"),
    "no-type": Case(415, headers=NO_TYPE, way="application"),
    "another-type": Case(415, headers={"Content-Type": "text/plain"}, way="application"),
    "a-coding": Case(415, headers={"Content-Encoding": "br"}, way="application"),
    # Refused for what was read
    "too-large": Case(413, settings={"limits": {"max_body_bytes": 20}}),
    "too-large-for-chat": Case(413, "/chat", settings={"limits": {"max_body_bytes": 20}}),
    "no-json": Case(400, body=b"{"),
    "nothing": Case(400, body=b""),
    "no-utf-8": Case(400, body=b'{"model":"\xff"}'),
    "no-object": Case(400, body=[]),
    "no-messages": Case(400, body={"model": "m"}),
    "no-messages-for-chat": Case(400, "/chat", {"model": "m"}),
    "no-messages-for-messages": Case(400, "/v1/messages", {"model": "m"}),
    "no-prompt": Case(400, "/api/chat", {}),
    "no-role": Case(400, body={"model": "m", "messages": [{}]}),
    "deep": Case(400, body=b'{"model":"m","messages":' + b"[" * 20_000),
    "no-memory": Case(400, "/v1/responses", {"model": "m", "input": "Hi", "previous_response_id": "resp_1"}),
    "no-model": Case(404, body={**SAID, "model": "none"}),
    "no-model-for-messages": Case(404, "/v1/messages", {**SAID, "model": "none"}),
    "not-this-model": Case(403, settings=laptop(models=["other"])),
    "not-this-model-for-chat": Case(403, "/chat", settings=laptop(models=["other"])),
    # Refused for how much there is
    "requests-a-minute": Case(429, settings=laptop(requests_per_minute=1), times=2),
    "requests-a-minute-of-messages": Case(429, "/v1/messages", settings=laptop(requests_per_minute=1), times=2),
    "tokens-a-minute": Case(429, settings=laptop(tokens_per_minute=9), times=2),
    "exchanges-of-a-key": Case(429, settings=laptop(streams=1), busy=True),
    "exchanges": Case(503, settings={"limits": {"max_streams": 1}}, busy=True),
    "exchanges-of-chat": Case(503, "/chat", settings={"limits": {"max_streams": 1}}, busy=True),
    "what-is-refused-costs-nothing": Case(
        400, body={"model": "m"}, settings=laptop(requests_per_minute=2, tokens_per_minute=9), times=3
    ),
    # Refused by the provider, or for it
    "theirs-400": Case(400, script=lambda: refusal(400, "no", param="messages")),
    "theirs-404": Case(404, script=lambda: refusal(404, "no such model")),
    "theirs-422": Case(422, body=STREAMED, script=lambda: refusal(422, f"no, says {UPSTREAM_KEY}")),
    "theirs-429": Case(429, script=lambda: refusal(429, "slow down", {"Retry-After": "17", "x-ratelimit-a": "b"})),
    "theirs-429-beside-ours": Case(
        429, script=lambda: refusal(429, "slow", {"Retry-After": "17"}), settings=laptop(requests_per_minute=9)
    ),
    "theirs-429-with-a-date": Case(
        429, script=lambda: refusal(429, "slow", {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})
    ),
    "theirs-401": Case(502, script=lambda: refusal(401, "bad key")),
    "theirs-500": Case(502, script=lambda: refusal(500)),
    "theirs-529-of-messages": Case(502, "/v1/messages", STREAMED, script=lambda: refusal(529, "overloaded")),
    "hung-up": Case(502, script=hung_up),
    "nonsense": Case(502, "/chat", script=lambda: whole(b"nonsense")),
    "first-byte": Case(504, body=STREAMED, script=silent, settings=QUICK),
    "total": Case(504, script=silent, settings=QUICK),
    "total-of-api-chat": Case(504, "/api/chat", {"prompt": "Hi", "stream": False}, script=silent, settings=QUICK),
    # Pages
    **{
        f"{name}-{what}": Case(status, body=body, headers=headers, settings=settings)
        for name, headers, settings in (
            ("any-page", {"Origin": PAGE}, {}),
            ("a-listed-page", {"Origin": PAGE}, LISTED),
            ("another-page", {"Origin": "https://other.example"}, LISTED),
            ("no-page", {}, LISTED),
        )
        for what, status, body in (("whole", 200, SAID), ("streamed", 200, STREAMED), ("refused", 400, {}))
    },
}


@pytest.fixture(autouse=True)
def minute(monkeypatch):
    """It is always the same moment: as much is left of the minute, and answers were made in the same second."""
    monkeypatch.setattr("proxy.middleware.limits.monotonic", lambda: 90.0)
    monkeypatch.setattr("time.time", lambda: 1_750_000_000.0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_the_way_makes_no_difference(upstream, gateway, monkeypatch, capfd, case):
    seen = {}
    for best in WAYS:
        with monkeypatch.context() as patch:
            taken = watch(patch, best)
            seen[best] = await see(upstream, gateway, capfd, case)
        way = max(best, case.way, key=WAYS.index)
        assert taken[-case.times :] == [way] * case.times
    lane = seen["lane"]
    assert lane.told[-1].status == case.status
    for other in ("express", "application"):
        assert seen[other] == lane


@pytest.mark.parametrize("path", [CHAT, "/chat", "/v1/messages"])
async def test_nor_does_it_for_a_mistake_of_ours(upstream, gateway, monkeypatch, capfd, caplog, path):
    def mistaken(*_: object) -> None:
        raise RuntimeError("a mistake, and a secret")

    case, seen, records = Case(500, path), {}, []
    for best in WAYS:
        with monkeypatch.context() as patch:
            taken = watch(patch, best)
            patch.setattr("proxy.handlers.Attempt.begin", mistaken)
            seen[best] = await see(upstream, gateway, capfd, case)
        assert taken == [best]
        records.append([record.getMessage() for record in caplog.records])
        caplog.clear()
    assert seen["lane"] == seen["express"] == seen["application"]
    (told,) = seen["lane"].told
    assert (told.status, told.next) == (500, 404)
    assert b"mistake" not in told.body
    assert b"internal error; request id req_ID" in told.body
    assert [[unchanging(line.encode()) for line in lines] for lines in records] == [[b"request req_ID failed"]] * 3


# Ways that a lane is none of...


def old(case: Case, *fields: str) -> bytes:
    """A request in HTTP/1.0."""
    body, headers = request_of(case)
    lines = [f"POST {case.path} HTTP/1.0", *(f"{name}: {value}" for name, value in headers), *fields]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


OLD = ["chat-completions", "a-stream", "json-for-a-stream", "a-broken-stream", "no-messages", "no-model-for-messages"]
OLD += ["requests-a-minute", "theirs-429", "exchanges"]


@pytest.mark.parametrize("fields", [(), ("Connection: keep-alive",)], ids=["", "keep-alive"])
@pytest.mark.parametrize("name", OLD)
async def test_nor_does_it_for_http_1_0(upstream, gateway, monkeypatch, capfd, name, fields):
    case, seen = CASES[name], {}

    async def ask_in_old_words(gateway: Gateway, case: Case) -> list[Told]:
        told = []
        for _ in range(case.times):
            client = await gateway.connect()
            await client.send(old(case, *fields))
            told.append(await tell(await client.answer()))
        return told

    monkeypatch.setattr("tests.functional.test_two_ways.ask", ask_in_old_words)
    for best in WAYS[1:]:
        with monkeypatch.context() as patch:
            taken = watch(patch, best)
            seen[best] = await see(upstream, gateway, capfd, case)
        assert best in taken
    assert seen["express"] == seen["application"]
    assert seen["express"].told[-1].status == case.status
    for told in seen["express"].told:
        streamed = ("content-type", "text/event-stream; charset=utf-8") in told.fields
        assert told.next == (404 if fields and not streamed else "closed")


@pytest.mark.parametrize("name", ["chat-completions", "a-stream", "no-messages", "theirs-429"])
async def test_nor_does_it_for_a_client_that_wants_no_more(upstream, gateway, monkeypatch, capfd, name):
    case, seen = CASES[name], {}
    case = Case(case.status, case.path, case.body, {"Connection": "close"}, script=case.script)
    for best in WAYS[1:]:
        with monkeypatch.context() as patch:
            taken = watch(patch, best)
            seen[best] = await see(upstream, gateway, capfd, case)
        assert taken == [best]
    assert seen["express"] == seen["application"]
    (told,) = seen["express"].told
    assert (told.status, told.next) == (case.status, "closed")
    assert ("connection", "close") in told.fields
