"""What we write, as Anthropic's own client reads it."""

from __future__ import annotations

import importlib
import warnings

import pytest

from proxy.dialects.anthropic_messages import errors
from proxy.dialects.anthropic_messages.count import body as count_body
from proxy.dialects.anthropic_messages.writer import Writer, whole
from proxy.errors import InvalidRequest, Overloaded, UpstreamError
from proxy.events import (
    Block,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSigned,
    Cited,
    MessageEnded,
    MessageStarted,
    Stop,
    Usage,
)
from tests.cuts import drip
from tests.dialects.anthropic_messages import fold, read, recorded, write
from tests.dialects.anthropic_messages.grammar import check

anthropic = pytest.importorskip("anthropic")
#: The client's HTTP library has changed its name: httpx, httpx2.
httpx = importlib.import_module(anthropic.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])

ASKED = {"model": "claude-x", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}

EVENTS = [
    MessageStarted("chatcmpl-1", "gpt-x"),
    BlockOpened(0, Block.THINKING),
    BlockDelta(0, Block.THINKING, "Hm"),
    BlockDelta(0, Block.THINKING, "m."),
    BlockSigned(0, "sig"),
    BlockClosed(0),
    BlockOpened(1, Block.THINKING, redacted="xyz"),
    BlockClosed(1),
    BlockOpened(2, Block.TEXT),
    Cited(2, {"url": "https://e.org", "title": "E", "text": "So."}),
    BlockDelta(2, Block.TEXT, "Hé"),
    BlockDelta(2, Block.TEXT, 'llo "\n\u2028'),
    BlockClosed(2),
    BlockOpened(3, Block.TOOL_CALL, "call_1", "look"),
    BlockDelta(3, Block.TOOL_CALL, '{"a":'),
    BlockDelta(3, Block.TOOL_CALL, ' "b"}'),
    BlockClosed(3),
    BlockOpened(4, Block.TOOL_CALL, "call_2", "go"),
    BlockClosed(4),
    MessageEnded(Stop.TOOL_CALLS, Usage(100, 20, cached=60, cache_written=10, reasoning=5)),
]


def client(content, status: int = 200, kind: str = "text/event-stream; charset=utf-8"):
    """A client whose every request is answered so; ``content`` is bytes, or chunks of them."""
    transport = httpx.MockTransport(
        lambda request: httpx.Response(status, headers={"content-type": kind}, content=content)
    )
    return anthropic.Anthropic(
        api_key="k", base_url="http://gateway", max_retries=0, http_client=httpx.Client(transport=transport)
    )


def streamed(content):
    with client(content).messages.stream(**ASKED) as stream:
        return stream.get_final_message()


def told(message):
    return message.model_dump(exclude_none=True, exclude={"usage", "id", "model"}, warnings=False)


def test_a_stream_accumulates_to_the_message():
    stream = write(EVENTS)
    check(stream)
    for content in (stream, iter(drip(stream))):
        message = streamed(content)
        thinking, redacted, text, look, go = message.content
        assert (thinking.thinking, thinking.signature, redacted.data) == ("Hmm.", "sig", "xyz")
        assert (text.text, text.citations[0].url, text.citations[0].cited_text) == (
            'Héllo "\n\u2028',
            "https://e.org",
            "So.",
        )
        assert (look.id, look.name, look.input) == ("call_1", "look", {"a": "b"})
        assert (go.id, go.name, go.input) == ("call_2", "go", {})
        assert (message.id, message.model, message.stop_reason) == ("msg_chatcmpl-1", "claude-x", "tool_use")
        usage = message.usage
        assert (usage.input_tokens, usage.output_tokens) == (30, 20)
        assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (60, 10)
        assert usage.output_tokens_details.thinking_tokens == 5


def test_a_stream_and_its_fold_are_the_same_message():
    message = client(whole(fold(EVENTS), "claude-x"), kind="application/json").messages.create(**ASKED)
    assert told(message) == told(streamed(write(EVENTS)))
    assert message.usage.input_tokens == 30


def test_raw_events_come_in_order_and_pings_are_passed_over():
    ping = Writer.keepalive("comment")
    events = client(ping + write(EVENTS[:1]) + ping + write(EVENTS)).messages.create(**ASKED, stream=True)
    kinds = [event.type for event in events]
    assert "ping" not in kinds
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]


async def test_the_asynchronous_client_agrees():
    async def chunks():
        for chunk in drip(write(EVENTS)):
            yield chunk

    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=chunks())
    )
    http = httpx.AsyncClient(transport=transport)
    asked = anthropic.AsyncAnthropic(api_key="k", base_url="http://gateway", max_retries=0, http_client=http)
    async with asked.messages.stream(**ASKED) as stream:
        message = await stream.get_final_message()
    assert told(message) == told(streamed(write(EVENTS)))
    await asked.close()


def test_an_error_in_a_stream_is_raised_with_its_words():
    wire = write(EVENTS[:3]) + errors.frame(UpstreamError("the provider's stream ended inside a frame"))
    check(wire)
    with (
        pytest.raises(anthropic.APIStatusError, match="ended inside a frame") as caught,
        client(wire).messages.stream(**ASKED) as stream,
    ):
        stream.get_final_message()
    assert caught.value.body["error"]["type"] == "api_error"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        pytest.param(InvalidRequest("`max_tokens` must be a whole number"), "BadRequestError", id="400"),
        pytest.param(Overloaded("full"), "InternalServerError", id="503"),
    ],
)
def test_an_error_answer_is_raised_with_its_words(error, raised):
    asked = client(errors.body(error, "req_1"), error.status, "application/json")
    with pytest.raises(getattr(anthropic, raised), match=error.message):
        asked.messages.create(**ASKED)


def test_a_count_is_read():
    asked = client(count_body(42), kind="application/json")
    assert asked.messages.count_tokens(model="m", messages=ASKED["messages"]).input_tokens == 42


@recorded
def test_a_recording_read_and_written_anew_is_the_same_message(recording):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own about retired models
        before, after = streamed(recording.body), streamed(write(read(recording.body)))
    shown = [block for block in before.content if not block.type.startswith(("server_tool", "web_search"))]
    assert [b.model_dump(exclude_none=True, exclude={"caller"}, warnings=False) for b in after.content] == [
        {k: v for k, v in b.model_dump(exclude_none=True, exclude={"caller"}, warnings=False).items() if v != []}
        for b in shown
    ]
    assert (after.stop_reason, after.stop_sequence) == (before.stop_reason, before.stop_sequence)
    assert (after.id, after.usage.input_tokens, after.usage.output_tokens) == (
        before.id,
        before.usage.input_tokens,
        before.usage.output_tokens,
    )
    assert after.usage.cache_read_input_tokens == before.usage.cache_read_input_tokens
