"""How bytes are cut and framed, where streams end, who is counted, and what tool calls look like."""

from __future__ import annotations

import pytest

from tests.cuts import telling_cuts
from tests.dialects import anthropic_messages, gemini, openai_responses
from tests.dialects.openai_chat import chunk, say, sse
from tests.functional.dialects import CHAT, GEMINI, MESSAGES, RESPONSES, WORKERS_AI
from tests.functional.test_thoughts import SECOND_TURN, THINKING, TOOLS, USER, asked
from tests.functional.upstream import completion, conversation, in_turn, stream, whole
from tests.quirks import CLIENTS, anew, calls, fed, heard, passing, translating
from tests.wire import wire

END = b"data: [DONE]\n\n"
ROME = [("weather", '{"city":"Rome"}'), ("time", "{}")]


@pytest.mark.parametrize("name", ["plain", "crlf", "unicode-line-ends-in-content"])
def test_01_reads_cut_anywhere_change_nothing(name):
    once = fed(passing(), wire(name)).out, anew(wire(name)).text
    for pieces in telling_cuts(wire(name)):
        assert (fed(passing(), *pieces).out, anew(*pieces).text) == once


async def test_02_a_line_may_be_as_long_as_a_frame(gateway, upstream):
    long = "x" * 2**20
    upstream.script = stream(conversation(long))
    frames = await (await (await gateway()).chat(stream=True)).frames()
    assert "".join(frame.content or "" for frame in frames if not frame.done) == long


def test_02_a_line_that_is_longer_is_refused_by_our_own_bound():
    told = fed(passing(max_frame=200), sse(say("x" * 200)))
    assert told.out == b""
    assert "max_frame" in told.error.message


FAULTS = {
    "openai": ("openai_chat", sse(say("a"), {"error": {"message": "it broke"}}, b"[DONE]")),
    "groq": ("openai_chat", sse(say("a")) + b'event: error\ndata: {"error":{"message":"it broke"}}\n\n'),
    "openrouter": ("openai_chat", sse(chunk({"content": ""}, finish="error", error={"message": "it broke"}))),
    "a-word": ("openai_chat", sse(say("a"), {"error": "it broke"})),
    "messages": (
        "anthropic_messages",
        anthropic_messages.sse(
            anthropic_messages.start(),
            {"type": "error", "error": {"type": "overloaded_error", "message": "it broke"}},
        ),
    ),
    "responses": (
        "openai_responses",
        openai_responses.sse(openai_responses.created(), {"type": "error", "code": "x", "message": "it broke"}),
    ),
    "google": (
        "gemini",
        gemini.sse(gemini.chunk(gemini.text("a"))) + b'{\n "error": {\n  "message": "it broke"\n }\n}\n',
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("provider", "stream"), FAULTS.values(), ids=FAULTS)
def test_03_errors_after_the_200_are_told_in_the_client_s_words_and_never_as_an_end(provider, stream, client):
    pipe = translating(provider, client)
    told = fed(pipe, stream)
    assert (told.done, "it broke" in told.error.message) == (False, True)
    assert b"it broke" in pipe.fail(told.error)
    if provider == client == "openai_chat":
        assert "it broke" in fed(passing(), stream).error.message


@pytest.mark.parametrize("comment", [b": keep-alive\n\n", b": OPENROUTER PROCESSING\n\n", b":\n", b":\n\n"])
def test_04_comments_are_signs_of_life_and_not_the_beginning_of_an_answer(comment):
    for pipe in (passing(), translating()):
        pipe.feed(comment * 3 + comment[:2])
        assert (pipe.frames, pipe.holding) == (0, False)
        pipe.feed(comment[2:] + wire("plain"))
        assert pipe.done


@pytest.mark.parametrize(
    ("provider", "speaker"),
    [("openai_chat", CHAT), ("gemini", GEMINI), ("anthropic_messages", MESSAGES), ("openai_responses", RESPONSES)],
    ids=["chat", "gemini", "messages", "responses"],
)
def test_05_the_end_mark_is_supplied_where_none_came(provider, speaker):
    told = anew(b"".join(speaker.says("Hel", "lo")).replace(END, b""), provider=provider)
    assert (told.text, told.finishes, told.done) == ("Hello", ["stop"], True)
    assert told.out.endswith(END)


def test_05_and_where_bytes_pass():
    assert fed(passing(), wire("no-end-mark")).out.endswith(END)


def test_06_an_end_without_finish_reason_is_a_cut_wherever_it_is():
    stream = wire("plain")
    for place in range(stream.index(b'"stop"')):
        for told in (fed(passing(), stream[:place]), anew(stream[:place])):
            assert told.error is not None
            assert not told.done
            assert b'"stop"' not in told.out
            assert b"[DONE]" not in told.out


def test_07_chunks_without_choices_are_no_harm_and_no_source_of_names():
    told = anew(wire("empty-choices-first"))
    assert (told.text, {frame["model"] for frame in told.frames}) == ("Hello", {"alias"})
    assert len({frame["id"] for frame in told.frames}) == 1
    assert all(frame["id"] and frame["created"] for frame in told.frames)
    assert fed(passing(), wire("empty-choices-first")).done


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("usage-on-finish-chunk", (3, 1)),
        ("usage-alone-after-finish", (3, 1)),
        ("usage-after-finish-with-a-choice", (3, 1)),
        ("usage-twice", (3, 1)),
        ("usage-on-every-chunk-and-no-end-mark", (3, 2)),
        ("usage-with-zeros-last", (57, 28)),
        ("usage-real-then-zeros", (57, 28)),
    ],
)
def test_08_usage_is_the_last_that_counts_and_told_once_to_who_asked(name, tokens):
    for asks in (True, False):
        for told in (fed(passing(asked=asks), wire(name)), anew(wire(name), include_usage=asks)):
            assert (told.usage.input, told.usage.output) == tokens
            bare = [frame["usage"] for frame in told.frames if frame.get("usage") and not frame["choices"]]
            assert [(cost["prompt_tokens"], cost["completion_tokens"]) for cost in bare] == [tokens] * asks


def test_09_a_call_that_came_whole_is_told_at_once():
    name = "tool-calls-whole-in-one-chunk"
    first, _, rest = wire(name).partition(b"\n\n")
    pipe = translating(client="anthropic_messages")
    assert b'{\\"city\\":\\"Rome\\"}' in pipe.feed(first + b"\n\n")
    pipe.feed(rest)
    assert calls(heard(wire(name))) == ROME


@pytest.mark.parametrize("name", ["tool-calls-without-index", "tool-calls-all-with-index-zero"])
def test_10_calls_are_told_apart_by_index_else_id_else_name(name):
    assert calls(heard(wire(name))) == ROME
    assert [call["index"] for d in anew(wire(name)).deltas for call in d.get("tool_calls", ())] == [0, 0, 1, 1]
    nameless = wire(name).replace(b'"id":"call_1",', b"").replace(b'"id":"call_2",', b"")
    if "without" in name:
        assert calls(heard(nameless)) == ROME


@pytest.mark.parametrize(
    ("provider", "stream"),
    [
        ("gemini", gemini.sse(gemini.chunk(gemini.call("look"), finish="STOP"))),
        ("openai_chat", wire("tool-calls-without-index").replace(b'n":"tool_calls"', b'n":"stop"')),
        ("workers_ai", b"".join(WORKERS_AI.calls())),
    ],
    ids=["gemini", "chat", "workers-ai"],
)
def test_11_a_stop_after_tool_calls_becomes_tool_calls(provider, stream):
    assert anew(stream, provider=provider).finishes == ["tool_calls"]
    assert b'"stop_reason":"tool_use"' in anew(stream, provider=provider, client="anthropic_messages").out


@pytest.mark.parametrize("name", ["crlf", "cr", "mixed-line-ends"])
def test_12_every_kind_of_line_end_may_be_cut_in_two(name):
    for pieces in telling_cuts(wire(name)):
        assert fed(passing(), *pieces).text == anew(*pieces).text == "Hello"


@pytest.mark.parametrize("asks", [False, True], ids=["whole", "stream"])
async def test_13_blank_lines_before_an_answer_say_nothing(gateway, upstream, asks):
    blank = b"\n\n\n\n"
    upstream.script = stream([blank, *conversation("Hello!")]) if asks else whole(completion(), prefix=blank)
    answer = await (await gateway(providers=[{"name": "up", "kind": "deepseek"}])).chat(stream=asks)
    assert answer.status == 200
    assert b"Hello!" in await answer.body()


async def test_13_a_200_and_blank_lines_are_not_yet_success(gateway, upstream):
    upstream.script = stream([b"\n\n\n\n"])
    assert (await (await gateway()).chat(stream=True)).status == 502


async def test_14_thoughts_that_a_client_dropped_are_sent_back(gateway, upstream):
    one = await gateway(providers=[{"name": "up", "kind": "deepseek"}])
    upstream.script = in_turn(stream(THINKING), stream(conversation("done")))
    for messages in ([USER], SECOND_TURN):
        await (await one.chat(messages=messages, tools=TOOLS, stream=True)).frames()
    assert asked(upstream.calls[1])[1]["reasoning_content"] == "first this"
