"""What goes wrong, and what is counted, in every client's dialect, translated and passed on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from proxy import wheel
from tests.dialects.anthropic_messages import grammar as messages_grammar
from tests.dialects.gemini import grammar as gemini_grammar
from tests.dialects.openai_chat import grammar as chat_grammar
from tests.dialects.openai_responses import grammar as responses_grammar

from . import UPSTREAM_KEY
from .dialects import CHAT, COST, GEMINI, MESSAGES, RESPONSES, RESPONSES_ONLY, Provider
from .speakers import counted, open_streams, settled
from .upstream import Call, Gate, gated_stream, held, hung_up, silent, stream, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Gateway
    from .upstream import Upstream
    from .wire import Answer

#: Seconds of silence before a client is told that all is well.
SOON = 0.03
COMMENT = b": keep-alive\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
TURNS = [{"role": "user", "content": "Hi"}]
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
PROVIDERS = {
    "chat": CHAT,
    "messages": MESSAGES,
    "responses": RESPONSES,
    "endpoint": RESPONSES_ONLY,
    "gemini": GEMINI,
}
FAULTS = ("invalid", "unknown", "limited", "broken", "late")
OPENAI_S = (
    "invalid_request_error",
    "invalid_request_error",
    "rate_limit_error",
    "server_error",
    "server_error",
)
GOOGLE_S = ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "INTERNAL", "DEADLINE_EXCEEDED")


@dataclass(frozen=True)
class Client:
    """A client's dialect: how it asks, and what its streams and errors look like."""

    body: dict[str, Any]
    #: Whole and streamed.
    paths: tuple[str, str]
    #: What is sent in silence, by `stream.keepalive_mode`.
    silence: dict[str, bytes]
    #: Part of every stream that ended well, and of none that did not.
    end: bytes
    #: Its words for ``FAULTS``.
    words: tuple[str, ...]
    check: Callable[[bytes], None]
    route: str
    #: Between its error frame's bytes.
    fault: bytes = b'"error":'

    async def ask(self, gateway: Gateway, *, streamed: bool = True, model: str = "m") -> Answer:
        return await gateway.request("POST", self.path(model, streamed), json=self.fields(model, streamed))

    def path(self, model: str, streamed: bool) -> str:
        return self.paths[streamed].replace("MODEL", model)

    def fields(self, model: str, streamed: bool) -> dict[str, Any]:
        if "MODEL" in self.paths[0]:  # where the path says it all
            return self.body
        return {**self.body, "model": model, "stream": streamed}

    def kind(self, body: Any) -> str:
        """The word for what went wrong, of a whole error answer."""
        error = body["error"]
        return str(error if isinstance(error, str) else error.get("status") or error["type"])

    def message(self, body: Any) -> str:
        return str(body["details"] if "details" in body else body["error"]["message"])


def simple_check(frames: bytes) -> None:
    for frame in frames.removesuffix(b"\n\n").split(b"\n\n"):
        assert frame.startswith(b"data: {")
        json.loads(frame[6:])


_SILENT = {"comment": b"", "chunk": b"", "off": b""}
CLIENTS = {
    "chat": Client(
        {"messages": TURNS},
        ("/v1/chat/completions",) * 2,
        {"comment": COMMENT, "chunk": b'"delta":{}', "off": b""},
        b"data: [DONE]",
        OPENAI_S,
        chat_grammar.check,
        "chat_completions",
    ),
    "simple": Client(
        {"messages": TURNS},
        ("/api/chat",) * 2,
        {"comment": COMMENT, "chunk": b'{"delta":""}', "off": b""},
        b'"done":true',
        ("invalid_request", "not_found", "rate_limited", "upstream_error", "timeout"),
        simple_check,
        "api_chat",
    ),
    "messages": Client(
        {"messages": TURNS, "max_tokens": 64},
        ("/v1/messages",) * 2,
        {"comment": PING, "chunk": PING, "off": b""},
        b"event: message_stop",
        ("invalid_request_error", "not_found_error", "rate_limit_error", "api_error", "timeout_error"),
        messages_grammar.check,
        "messages",
        b"event: error",
    ),
    "responses": Client(
        {"input": "Hi"},
        ("/v1/responses",) * 2,
        {"comment": COMMENT, "chunk": COMMENT, "off": b""},
        b"event: response.completed",
        OPENAI_S,
        responses_grammar.check,
        "responses",
        b"event: response.failed",
    ),
    "gemini": Client(
        CONTENTS,
        ("/v1beta/models/MODEL:generateContent", "/v1beta/models/MODEL:streamGenerateContent?alt=sse"),
        _SILENT,
        b'"finishReason"',
        GOOGLE_S,
        gemini_grammar.check,
        "gemini",
    ),
    "gemini_array": Client(
        CONTENTS,
        ("/v1beta/models/MODEL:generateContent", "/v1beta/models/MODEL:streamGenerateContent"),
        _SILENT,
        b'"finishReason"',
        GOOGLE_S,
        gemini_grammar.check_array,
        "gemini",
    ),
}

#: Each dialect translated, and each that providers speak passed on.
CROSSED = [
    ("chat", "messages"),
    ("chat", "gemini"),
    ("chat", "endpoint"),
    ("simple", "messages"),
    ("simple", "endpoint"),
    ("messages", "chat"),
    ("messages", "gemini"),
    ("messages", "endpoint"),
    ("responses", "chat"),
    ("responses", "messages"),
    ("gemini", "chat"),
    ("gemini", "endpoint"),
    ("gemini_array", "chat"),
    ("gemini_array", "gemini"),
]
PASSED = [("messages", "messages"), ("responses", "responses"), ("gemini", "gemini")]


def pairs(*given: tuple[str, str]) -> Any:
    values = [pytest.param(CLIENTS[c], PROVIDERS[p], id=f"{c}-{p}") for c, p in given]
    return pytest.mark.parametrize(("client", "provider"), values)


crossings = pairs(*CROSSED)
everywhere = pairs(*CROSSED, *PASSED)


def upto(frames: list[bytes], text: bytes) -> int:
    """How many frames there are until the one that says it."""
    return 1 + next(at for at, frame in enumerate(frames) if text in frame)


async def until(answer: Answer, text: bytes) -> bytes:
    """Read until this has been said."""
    heard = b""
    while text not in heard:
        piece = await answer.chunk()
        assert piece is not None, f"the stream ended before {text!r}: {heard!r}"
        heard += piece
    return heard


def well_formed(client: Client, provider: Provider, stream: bytes) -> None:
    """Is it so for the client's strictest reader?  What is passed on is as the provider has it."""
    if not any(client is CLIENTS[c] and provider is PROVIDERS[p] for c, p in PASSED):
        client.check(stream)


def refused(client: Client, body: Any, fault: str) -> str:
    """The message of an error, which is in the client's words whoever the provider is."""
    assert client.kind(body) == client.words[FAULTS.index(fault)]
    return client.message(body)


# Pieces and silence...


@everywhere
async def test_each_piece_is_told_before_the_next_is_said(upstream: Upstream, gateway: Callable, client, provider):
    gate, frames = Gate(), provider.says("one", "two", "three")
    upstream.script = gated_stream(frames, gate)
    gw = await gateway(**provider.table)
    gate.open(upto(frames, b"one"))
    answer = await client.ask(gw)
    heard = await until(answer, b"one")
    assert b"two" not in heard
    gate.open(upto(frames, b"two") - upto(frames, b"one"))
    heard += await until(answer, b"two")
    assert b"three" not in heard
    gate.open_all()
    heard += await answer.body()
    well_formed(client, provider, heard)
    assert client.end in heard
    assert client.fault not in heard.replace(b'"error":null', b"")


@everywhere
@pytest.mark.parametrize("mode", ["comment", "chunk", "off"])
async def test_silence_is_filled_as_the_client_can_bear_it(upstream, gateway, monkeypatch, client, provider, mode):
    """Another client watches, whose dialect has comments: so there was time for all."""
    monkeypatch.setattr(wheel, "GRAIN", 0.01)
    gate, frames = Gate(), provider.says("one", "two")
    one = upto(frames, b"one")

    async def script(call: Call) -> None:
        for at, frame in enumerate(frames):
            if at == one:
                await gate.passed()
            await call.frame(frame)
        await call.done()

    upstream.script = script
    settings = {"keepalive": SOON, "keepalive_mode": mode}
    gw = await gateway(**provider.table, stream=settings)
    answer = await client.ask(gw)
    heard = await until(answer, b"one")
    if client.silence[mode]:
        heard += await until(answer, client.silence[mode])
    else:
        gw.swap(**provider.table, stream={**settings, "keepalive_mode": "comment"})
        watcher = CLIENTS["messages"]
        watching = await watcher.ask(gw)
        for _ in range(3):  # one may be the provider's own
            await until(watching, PING)
        gate.open_all()
        await watching.body()
    gate.open_all()
    heard += await answer.body()
    if not client.silence[mode]:
        assert COMMENT not in heard
        theirs = b"".join(frames) if client.end in b"".join(frames) else b""
        assert heard.count(PING) == theirs.count(PING)
    if (client.route, mode) != ("chat_completions", "chunk"):
        well_formed(client, provider, heard.replace(COMMENT, b""))
    assert client.end in heard


# Before the first frame...


@everywhere
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_a_refusal_keeps_its_status_and_words(upstream, gateway, client, provider, streamed):
    upstream.script = whole(provider.refuses("too hot", 400), 400)
    gw = await gateway(**provider.table)
    answer = await client.ask(gw, streamed=streamed)
    assert (answer.status, answer.header("Content-Type")) == (400, "application/json")
    assert refused(client, await answer.json(), "invalid") == "too hot"
    assert await settled(gw, outcome="refused", status="400") == 1


@everywhere
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_a_limit_of_the_provider_says_when_to_come_again(upstream, gateway, client, provider, streamed):
    word = "RESOURCE_EXHAUSTED" if provider is GEMINI else "rate_limit_error"
    headers = {"Content-Type": "application/json", "Retry-After": "17"}
    upstream.script = whole(provider.refuses("slower", 429, word), 429, headers)
    answer = await client.ask(await gateway(**provider.table), streamed=streamed)
    assert (answer.status, answer.header("Retry-After")) == (429, "17")
    assert refused(client, await answer.json(), "limited") == "slower"


@everywhere
@pytest.mark.parametrize("status", [401, 403])
async def test_that_our_key_was_refused_is_not_the_client_s_fault(upstream, gateway, client, provider, status):
    upstream.script = whole(provider.refuses(f"bad key {UPSTREAM_KEY}", status, "authentication_error"), status)
    gw = await gateway(**provider.table)
    answer = await client.ask(gw)
    assert answer.status == 502
    body = await answer.body()
    assert UPSTREAM_KEY.encode() not in body
    assert "key" in refused(client, json.loads(body), "broken")
    assert await settled(gw, outcome="failed", status="502") == 1


BROKEN = [
    pytest.param(hung_up(), id="fin"),
    pytest.param(hung_up("reset"), id="rst"),
    pytest.param(stream([b": nothing\n\n"]), id="no-frame"),
]
NONSENSE = [
    pytest.param(stream([b'data: {"error":{"message":"boom"}}\n\n']), id="an-error-frame"),
    pytest.param(stream([b"data: {nonsense\n\n"]), id="nonsense"),
]


@everywhere
@pytest.mark.parametrize("script", BROKEN)
async def test_a_break_before_the_first_frame_has_a_status(upstream, gateway, client, provider, script):
    upstream.script = script
    gw = await gateway(**provider.table)
    answer = await client.ask(gw)
    assert answer.status == 502
    assert refused(client, await answer.json(), "broken")
    assert await settled(gw, outcome="failed", status="502") == 1


@crossings
@pytest.mark.parametrize("script", NONSENSE)
async def test_a_fault_for_a_first_frame_has_a_status(upstream, gateway, client, provider, script):
    upstream.script = script
    gw = await gateway(**provider.table)
    answer = await client.ask(gw)
    assert answer.status == 502
    assert refused(client, await answer.json(), "broken")
    assert await settled(gw, outcome="failed", status="502") == 1


@everywhere
async def test_a_clock_that_runs_out_has_a_status(upstream, gateway, client, provider):
    upstream.script = silent()
    answer = await client.ask(await gateway(**provider.table, timeouts={"first_byte": 0.1}))
    assert answer.status == 504
    assert "timeouts.first_byte" in refused(client, await answer.json(), "late")


@everywhere
async def test_an_unknown_model(upstream, gateway, client, provider):
    answer = await client.ask(await gateway(**provider.table), model="nobody")
    assert answer.status == 404
    assert "nobody" in refused(client, await answer.json(), "unknown")
    assert upstream.calls == []


# Within a stream...


@everywhere
@pytest.mark.parametrize("how", ["close", "reset", "done"], ids=["fin", "rst", "http-is-whole"])
async def test_a_cut_is_told_after_what_came_and_is_no_end(upstream, gateway, client, provider, how):
    gate, frames = Gate(), provider.says("one", "two")

    async def script(call: Call) -> None:
        for frame in frames[: upto(frames, b"one")]:
            await call.frame(frame)
        await gate.passed()
        if how == "done":
            await call.done()
        else:
            (call.close if how == "close" else call.reset)()

    upstream.script = script
    gw = await gateway(**provider.table)
    answer = await client.ask(gw)
    assert answer.status == 200
    heard = await until(answer, b"one")
    gate.open()
    rest = await answer.body()  # HTTP itself is whole
    assert client.fault in rest
    assert client.end not in heard + rest
    assert b"127.0.0.1" not in rest
    well_formed(client, provider, heard + rest)
    assert await settled(gw, outcome="failed", status="200") == 1


@everywhere
async def test_a_stall_is_told_by_its_clock(upstream, gateway, client, provider):
    frames = provider.says("one", "two")
    upstream.script = held(frames[: upto(frames, b"one")])
    gw = await gateway(**provider.table, timeouts={"idle": 0.2})
    body = await (await client.ask(gw)).body()
    assert b"one" in body
    assert b"timeouts.idle" in body
    assert client.end not in body
    well_formed(client, provider, body)
    await (await upstream.arrived()).gone()


#: How Google tells an error when the answer has begun: JSON as it stands, in an event stream.
BARE = (
    b'{\r\n  "error": {\r\n    "code": 499,\r\n    "message": "was cancelled",\r\n    "status": "CANCELLED"\r\n  }\r\n}'
)
OF_GEMINI = pairs(*((client, "gemini") for client in CLIENTS))


@OF_GEMINI
@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n"], ids=["no-line-end", "a-line-end", "a-blank-line"])
@pytest.mark.parametrize("drip", [False, True], ids=["at-once", "byte-by-byte"])
async def test_an_error_that_is_no_event_is_told_in_the_stream(upstream, gateway, client, provider, end, drip):
    frames, bare = provider.says("one", "two"), BARE + end
    pieces = [bare[at : at + 1] for at in range(len(bare))] if drip else [bare]
    upstream.script = stream([*frames[: upto(frames, b"one")], *pieces])
    gw = await gateway(**provider.table)
    answer = await client.ask(gw)
    assert answer.status == 200
    heard = await answer.body()
    assert b"one" in heard
    assert client.fault in heard
    assert b"was cancelled" in heard
    assert client.end not in heard
    well_formed(client, provider, heard)
    assert await settled(gw, outcome="failed", status="200") == 1


@OF_GEMINI
@pytest.mark.parametrize("listed", [False, True], ids=["an-object", "an-array"])
async def test_json_instead_of_a_stream_is_an_error_with_a_status(upstream, gateway, client, provider, listed):
    slow = BARE.replace(b"499", b"429")
    upstream.script = stream([b"[%b]\r\n" % slow if listed else slow])
    gw = await gateway(**provider.table)
    answer = await client.ask(gw)
    assert answer.status == 429
    assert refused(client, await answer.json(), "limited") == "was cancelled"
    assert await settled(gw, outcome="refused", status="429") == 1


@OF_GEMINI
async def test_an_error_at_the_end_of_an_array_is_told(upstream, gateway, client, provider):
    """Asked for events, it answers with the array that others get: an answer that breaks off."""
    one = json.dumps(provider.said("one")).replace('"STOP"', "null").encode()
    upstream.script = whole(b"[%b\n,\r\n%b\n]" % (one, BARE))
    gw = await gateway(**provider.table)
    answer = await client.ask(gw)
    assert answer.status == 502
    assert "was cancelled" in refused(client, await answer.json(), "broken")
    assert await settled(gw, outcome="failed", status="502") == 1


# Leaving...


@everywhere
@pytest.mark.parametrize("leave", ["close", "abort"])
@pytest.mark.parametrize("begun", [True, False], ids=["in-the-midst", "before-the-head"])
async def test_a_client_that_leaves_takes_the_provider_along(upstream, gateway, client, provider, leave, begun):
    frames = provider.says("one", "two")
    upstream.script = held(frames[: upto(frames, b"one")]) if begun else silent()
    gw = await gateway(**provider.table)
    connection = await gw.connect()
    headers = {"Authorization": "Bearer sk-test-key"}
    await connection.request("POST", client.path("m", True), headers=headers, json=client.fields("m", True))
    call = await upstream.arrived()
    if begun:
        await until(await connection.answer(), b"one")
    getattr(connection, leave)()
    await call.gone()
    assert await settled(gw, outcome="client_gone") == 1
    assert open_streams(gw) == 0


# What is counted...


@everywhere
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_its_cost_is_recorded(upstream, gateway, capfd, client, provider, streamed):
    upstream.script = provider.answers("Hel", "lo!")
    gw = await gateway(**provider.table)
    answer = await client.ask(gw, streamed=streamed)
    assert answer.status == 200
    body = await answer.body()
    assert client.end in body or not streamed
    assert await settled(gw, outcome="ok", model="m", provider="up") == 1
    told = {"source": "upstream", "model": "m", "provider": "up"}
    spent = tuple(counted(gw, "ai_proxy_tokens_total", direction=way, **told) for way in ("input", "output"))
    assert spent == COST
    await gw.stop()
    (line,) = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert (line["route"], line["model"], line["provider"]) == (client.route, "m", "up")
    assert (line["outcome"], line["streamed"], line["usage_source"]) == ("ok", streamed, "upstream")
    assert (line["input_tokens"], line["output_tokens"]) == COST
