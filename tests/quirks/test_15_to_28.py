"""What must come back, what SDKs die of, what is no text and no JSON, and how answers finish."""

from __future__ import annotations

import json

import pytest

from proxy.dialects.anthropic_messages import writer as messages_writer
from proxy.dialects.gemini import writer as gemini_writer
from proxy.errors import UpstreamError
from proxy.events import Stop
from proxy.pipes import Passthrough
from proxy.registry import client_side, tap
from tests.dialects import anthropic_messages, gemini, openai_responses, workers_ai
from tests.dialects.anthropic_messages import grammar as messages_grammar
from tests.dialects.openai_chat import chunk, nothing, say, sse
from tests.functional.dialects import CHAT, GEMINI, MESSAGES
from tests.functional.upstream import completion, conversation, held, in_turn, stream, whole
from tests.quirks import anew, calls, fed, heard, passing, read_whole, request, thoughts, translating
from tests.wire import wire

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
USER = {"role": "user", "content": "go"}
SEALED = {
    "gemini": (GEMINI, gemini.sse(gemini.chunk(gemini.call("look", thoughtSignature="c2VhbA=="), finish="STOP"))),
    "messages": (
        MESSAGES,
        anthropic_messages.sse(
            anthropic_messages.start(),
            anthropic_messages.opened(0, type="thinking", thinking="", signature=""),
            anthropic_messages.delta(0, "thinking", thinking="Hm."),
            anthropic_messages.delta(0, "signature", signature="c2VhbA=="),
            anthropic_messages.closed(0),
            anthropic_messages.opened(1, type="tool_use", id="toolu_1", name="look", input={}),
            anthropic_messages.closed(1),
            anthropic_messages.stopped("tool_use"),
            anthropic_messages.END,
        ),
    ),
}


@pytest.mark.parametrize(("provider", "frames"), SEALED.values(), ids=SEALED)
async def test_15_signatures_come_back_even_if_the_client_has_no_place_for_them(gateway, upstream, provider, frames):
    one = await gateway(**provider.table)
    upstream.script = in_turn(stream([frames]), stream(provider.says("done")))
    effort = {"reasoning_effort": "low", "tools": TOOLS, "stream": True}
    first = await (await one.chat(messages=[USER], **effort)).frames()
    told = [c for f in first if not f.done for d in f.json["choices"] for c in d["delta"].get("tool_calls", ())]
    call = {"id": told[0]["id"], "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "2"},
    ]
    await (await one.chat(messages=turns, **effort)).frames()
    assert b"c2VhbA==" not in upstream.calls[0].body
    assert b'ignature":"c2VhbA=="' in upstream.calls[1].body


def test_15_a_signature_on_an_empty_text_at_the_end_is_kept():
    seal = gemini.text("", thoughtSignature="c2VhbA==")
    answer = heard(gemini.sse(gemini.chunk(gemini.text("a")), gemini.chunk(seal, finish="STOP")), "gemini")
    assert [block.signature for block in answer.blocks if block.signature] == ["c2VhbA=="]


def test_15_seals_of_chat_completions_pass_in_their_own_place():
    details = [{"type": "reasoning.encrypted", "data": "c2VhbA==", "index": 0}]
    frames = sse(chunk({"reasoning": "Hm.", "reasoning_details": details}), chunk(finish="stop"), b"[DONE]")
    assert fed(passing(), frames).out == frames


def test_15_sealed_thoughts_of_responses_reach_a_client_of_responses():
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2VhbA=="}
    frames = openai_responses.sse(
        openai_responses.created(),
        openai_responses.added(0, **item),
        openai_responses.done(0, **item),
        openai_responses.ended(output=[item]),
    )
    pipe = Passthrough(tap("openai_responses", nothing), translating(client="openai_responses").fail, 2**20)
    assert fed(pipe, frames).out == frames
    assert any("c2VhbA==" in block.signature for block in heard(frames, "openai_responses").blocks)


@pytest.mark.parametrize("name", ["reasoning-then-text", "reasoning-in-two-homes", "reasoning-as-content-parts"])
def test_16_thoughts_are_found_wherever_they_live_and_shown_once(name):
    assert (thoughts(heard(wire(name))), heard(wire(name)).text) == ("Hm.", "Hello")
    shown = "".join(delta.get("reasoning_content", "") for delta in anew(wire(name)).deltas)
    assert (shown, anew(wire(name)).text) == ("Hm.", "Hello")


@pytest.mark.parametrize("home", ["reasoning_content", "reasoning"])
def test_16_either_field_alone_is_enough(home):
    frames = sse(chunk({home: "Hm."}), say("Hello"), chunk(finish="stop"), b"[DONE]")
    assert (thoughts(heard(frames)), heard(frames).text) == ("Hm.", "Hello")


def test_16_thoughts_between_tags_are_text_as_nobody_can_tell_them_from_it():
    frames = sse(say("<think>Hm.</th"), say("ink>Hello"), chunk(finish="stop"), b"[DONE]")
    assert fed(passing(), frames).out == frames
    assert anew(frames).text == "<think>Hm.</think>Hello"


@pytest.mark.parametrize("name", ["plain", "no-end-mark", "usage-on-finish-chunk", "tool-calls-whole-in-one-chunk"])
def test_17_anthropic_s_sdk_gets_named_events_in_order_with_usage_and_no_end_mark(name):
    told = anew(wire(name), client="anthropic_messages")
    messages_grammar.check(told.out)
    assert b"[DONE]" not in told.out
    assert told.frames[0]["message"]["usage"]["input_tokens"] > 0


@pytest.mark.parametrize(
    "name", ["ids-and-retries", "empty-data-between", "unterminated-end-mark", "unterminated-usage"]
)
@pytest.mark.parametrize("told", [lambda raw: fed(passing(), raw), anew], ids=["passing", "anew"])
def test_18_openai_s_sdk_gets_data_and_blank_lines_only(name, told):
    *frames, rest = told(wire(name)).out.split(b"\n\n")
    assert rest == b""
    assert all(frame.startswith(b"data: ") and len(frame) > 6 and b"\n" not in frame for frame in frames)


def test_19_one_space_after_the_colon_or_none():
    assert fed(passing(), wire("no-space-after-the-colon")).text == "Hello"
    assert anew(wire("no-space-after-the-colon")).text == "Hello"
    assert heard(sse(say(" a"), chunk(finish="stop"), b"[DONE]").replace(b"data: ", b"data:")).text == " a"


def test_19_google_s_sdk_gets_the_space_and_the_error_first():
    fault = client_side("gemini").writer("m", request(), "req_1").fail(UpstreamError("it broke"))
    assert fault.startswith(b'data: {"error":')
    assert all(
        line.startswith(b"data: ") for line in anew(wire("plain"), client="gemini").out.split() if b":{" in line[:7]
    )


@pytest.mark.parametrize("said", [[], [chunk({"content": "a"})]], ids=["before-a-frame", "between-frames"])
async def test_20_a_client_that_leaves_ends_the_upstream_call_though_nothing_flows(gateway, upstream, said):
    upstream.script = held(said)
    one = await gateway(stream={"keepalive": 0})
    connection = await one.ask_chat(stream=True)
    call = await upstream.arrived()
    if said:
        await (await connection.answer()).event()
    connection.abort()
    await call.gone()
    await one.idle()


@pytest.mark.parametrize(("token", "text"), [(6, "6"), (0, "0"), (1.5, "1.5"), (None, ""), ("0", "0")])
def test_21_numbers_are_text_and_null_is_none(token, text):
    spoken = sse(say("a"), chunk({"content": token}), chunk(finish="stop"), b"[DONE]")
    native = workers_ai.sse(workers_ai.native("a"), workers_ai.native(token)) + workers_ai.DONE
    assert anew(spoken).text == anew(native, provider="workers_ai").text == "a" + text


def test_22_native_lines_between_openai_s_chunks_are_read_for_what_they_say():
    calling = workers_ai.native("", tool_calls=[{"name": "look", "arguments": {"a": 1}}])
    tail = {"response": "", "usage": workers_ai.COUNTS}
    frames = workers_ai.sse(workers_ai.delta(content="Hi"), calling, workers_ai.delta("stop"), tail) + workers_ai.DONE
    told = anew(frames, provider="workers_ai")
    assert (told.text, calls(heard(frames, "workers_ai"))) == ("Hi", [("look", '{"a":1}')])
    assert (told.usage.input, told.usage.output) == (7, 3)
    passed = fed(passing(), wire("usage-with-zeros-last"))
    assert b"neurons" not in passed.out


@pytest.mark.parametrize("kind", ["openai", "workers-ai", "deepseek"])
async def test_23_json_for_a_stream_becomes_one_and_a_stream_for_json_too(gateway, upstream, kind):
    account = {"account_id": "a" * 32} if kind == "workers-ai" else {}
    one = await gateway(providers=[{"name": "up", "kind": kind, "base_url": upstream.url, **account}])
    upstream.script = in_turn(whole(completion("Hello!")), stream(CHAT.says("Hel", "lo!")))
    frames = await (await one.chat(stream=True)).frames()
    assert "".join(frame.content or "" for frame in frames if not frame.done) == "Hello!"
    assert frames[-1].done
    assert (await (await one.chat()).json())["choices"][0]["message"]["content"] == "Hello!"


async def test_23_json_that_says_no_beside_a_200_is_an_error(gateway, upstream):
    upstream.script = whole({"error": {"message": "it broke"}})
    one = await gateway()
    assert [(await one.chat(stream=asks)).status for asks in (True, False)] == [502, 502]


def test_24_arguments_are_json_text_whatever_they_were():
    for name in ("tool-call-arguments-as-object", "tool-call-end-marker-of-nulls"):
        assert calls(heard(wire(name))) == [("weather", '{"city":"Rome"}')]
    for absent in (None, ""):
        raw = {"id": "c", "type": "function", "index": 0, "function": {"name": "now", "arguments": absent}}
        frames = sse(chunk({"tool_calls": [raw]}), chunk(finish="tool_calls"), b"[DONE]")
        told = [c["function"]["arguments"] for d in anew(frames).deltas for c in d.get("tool_calls", ())]
        assert json.loads("".join(told)) == {}
        assert json.loads(messages_writer.whole(heard(frames), "m", request()))["content"][0]["input"] == {}


@pytest.mark.parametrize("whole", [messages_writer.whole, gemini_writer.whole], ids=["messages", "gemini"])
def test_25_a_cut_call_passes_as_it_is_and_crashes_nobody(whole):
    cut = wire("tool-call-cut-by-the-limit")
    assert fed(passing(), cut).out == cut
    answer = heard(cut)
    assert (calls(answer), answer.stop) == ([("weather", '{"ci')], Stop.LENGTH)
    assert anew(cut).finishes == ["length"]
    assert json.loads(whole(answer, "m", request()))
    for client in ("anthropic_messages", "gemini", "openai_responses"):
        assert anew(cut, client=client).done


def test_26_the_finish_reason_is_told_once_after_all_text():
    assert anew(wire("finish-reason-repeated")).finishes == ["stop"]
    late = sse(say("a", finish="stop"), say("b", finish="stop"), b"[DONE]")
    assert (anew(late).text, anew(late).finishes) == ("ab", ["stop"])
    twice = gemini.sse(gemini.chunk(gemini.text("a"), finish="STOP"), gemini.chunk(gemini.text("b"), finish="STOP"))
    told = anew(twice, provider="gemini")
    assert (told.text, told.finishes) == ("ab", ["stop"])


def test_26_and_where_bytes_pass_nothing_after_it_is_lost():
    assert fed(passing(), wire("finish-reason-repeated")).out == wire("finish-reason-repeated")


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("eos", "stop"),
        ("model_length", "length"),
        ("insufficient_system_resource", "length"),
        ("abort", "stop"),
        ("error", "stop"),
        ("BRAND_NEW", "stop"),
        (7, "stop"),
    ],
)
def test_27_odd_finish_reasons_have_a_meaning_and_unknown_ones_are_stop(reason, told):
    assert anew(sse(say("a"), chunk(finish=reason), b"[DONE]")).finishes == [told]


def test_27_google_s_new_words_are_stop_too():
    assert anew(gemini.sse(gemini.chunk(gemini.text("a"), finish="BRAND_NEW")), provider="gemini").finishes == ["stop"]


@pytest.mark.parametrize("reason", ["", None])
def test_27_an_empty_or_absent_finish_reason_is_none(reason):
    early = sse(say("a", finish=reason), say("b"))
    for told in (fed(passing(), early), anew(early)):
        assert told.error is not None
    absent = early.replace(b',"finish_reason":null', b"")
    assert fed(passing(), absent).error is not None
    assert anew(wire("finish-reason-empty-on-every-chunk")).finishes == ["stop"]


@pytest.mark.parametrize("name", ["role-on-every-chunk", "plain", "tool-calls-whole-in-one-chunk"])
def test_28_the_role_is_told_once(name):
    assert [delta["role"] for delta in anew(wire(name)).deltas if "role" in delta] == ["assistant"]


def test_28_also_where_it_never_came():
    frames = sse(say("a"), chunk(finish="stop"), b"[DONE]")
    assert anew(frames).deltas[0]["role"] == "assistant"
    assert read_whole(completion("a"), "openai_chat").text == "a"
    assert translating().feed(sse(conversation("a")[1])).count(b'"role"') == 1
