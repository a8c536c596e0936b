"""What we write, as OpenAI's own client reads it; and what it sends back, as we read that."""

from __future__ import annotations

import importlib
import json

import pytest
from pydantic import BaseModel

from proxy.dialects.openai_responses import errors
from proxy.dialects.openai_responses.request import read as read_request
from proxy.dialects.openai_responses.tap import Tap
from proxy.dialects.openai_responses.writer import Writer, whole
from proxy.errors import InvalidRequest, RateLimited, UpstreamError
from proxy.events import MessageEnded, MessageStarted, Stop, Usage
from proxy.requests import Role, Text, Thinking, ToolCall, ToolResult, Turn
from proxy.sse import split
from tests.cuts import at, drip
from tests.dialects.openai_responses import (
    asked,
    block,
    fold,
    nothing,
    read,
    recorded,
    write,
)

openai = pytest.importorskip("openai")
#: The client's HTTP library has changed its name: httpx, httpx2.
httpx = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])

EVENTS = [
    MessageStarted("msg_1", "claude-x"),
    *block(0, "thinking", "Hm", "m.", signature="sig"),
    *block(1, "thinking", redacted="xyz"),
    *block(2, "text", "Hé", 'llo "\n\u2028'),
    *block(3, "tool_call", '{"a":', ' "b"}', id="call_1", name="look"),
    *block(4, "tool_call", id="call_2", name="go"),
    MessageEnded(Stop.TOOL_CALLS, Usage(100, 20, cached=60, cache_written=10, reasoning=5)),
]
STREAM = {"content-type": "text/event-stream; charset=utf-8"}


class Gateway:
    """A client, and the gateway that it asks: each answer in turn; ``asked`` are the bodies that came."""

    def __init__(self, *answers, status: int = 200) -> None:
        self.asked: list[bytes] = []
        self._answers = list(answers)
        self._status = status
        http = httpx.Client(transport=httpx.MockTransport(self._answer))
        self.responses = openai.OpenAI(
            api_key="k", base_url="http://gateway/v1", max_retries=0, http_client=http
        ).responses

    def _answer(self, request):
        self.asked.append(request.read())
        answer = self._answers.pop(0)
        if callable(answer):
            answer = answer(read_request(self.asked[-1]))
        headers = {"content-type": "application/json"} if answer[:1] == b"{" else STREAM
        return httpx.Response(self._status, headers=headers, content=iter(at(answer, [*range(0, len(answer), 13)])))


def stream(answer: bytes, **fields):
    return Gateway(answer).responses.create(model="m", input="Hi", stream=True, **fields)


def test_the_helper_accumulates_the_stream_to_the_response():
    with Gateway(write(EVENTS)).responses.stream(model="m", input="Hi") as events:
        kinds = [event.type for event in events]
        response = events.get_final_response()
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert (response.status, response.model, response.output_text) == ("completed", "told-model", 'Héllo "\n\u2028')
    thought, hidden, message, look, go = response.output
    assert thought.summary[0].text == "Hmm."
    assert (thought.encrypted_content, hidden.encrypted_content) != (None, None)
    assert message.content[0].annotations == []
    assert (look.call_id, look.name, look.arguments) == ("call_1", "look", '{"a": "b"}')
    assert (go.call_id, go.name, go.arguments) == ("call_2", "go", "{}")
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (100, 20, 120)
    assert (usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens) == (60, 5)


def test_snapshots_of_the_helper_grow_with_the_deltas():
    with Gateway(write(EVENTS)).responses.stream(model="m", input="Hi") as events:
        told = [(e.type, e.snapshot) for e in events if hasattr(e, "snapshot")]
    assert told == [
        ("response.output_text.delta", "Hé"),
        ("response.output_text.delta", 'Héllo "\n\u2028'),
        ("response.function_call_arguments.delta", '{"a":'),
        ("response.function_call_arguments.delta", '{"a": "b"}'),
        ("response.function_call_arguments.delta", "{}"),
    ]


def test_every_event_and_every_item_is_of_a_type_that_the_client_knows():
    events = list(stream(write(EVENTS)))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    known = [type(event).__name__ for event in events]
    assert "BaseModel" not in known
    assert known[0] == "ResponseCreatedEvent"
    for event in events:  # a field that is missing or of another type would be told here
        event.model_dump_json(warnings="error")
        type(event).model_validate_json(event.model_dump_json(by_alias=True))


def test_a_whole_answer_is_the_same_response():
    response = Gateway(whole(fold(EVENTS), "told-model")).responses.create(model="m", input="Hi")
    *_, last = stream(write(EVENTS))

    def told(response):
        return response.model_dump(
            exclude={"id": True, "created_at": True, "completed_at": True, "output": {"__all__": {"id"}}}
        )

    assert told(response) == told(last.response)
    assert response.output_text == 'Héllo "\n\u2028'


class Answer(BaseModel):
    city: str
    degrees: int


def test_structured_outputs_are_parsed_from_streams_and_from_whole_answers():
    events = [*block(0, "text", '{"city": "Rome",', ' "degrees": 40}'), MessageEnded(Stop.END)]

    def streamed(request):
        assert request.response_format.strict
        assert request.response_format.schema["required"] == ["city", "degrees"]
        return write([MessageStarted(), *events], request)

    gateway = Gateway(streamed, lambda request: whole(fold(events), "m", request))
    with gateway.responses.stream(model="m", input="Hi", text_format=Answer) as stream:
        done = [event.parsed for event in stream if event.type == "response.output_text.done"]
        response = stream.get_final_response()
    assert done == [Answer(city="Rome", degrees=40)]
    assert response.output_parsed == Answer(city="Rome", degrees=40)
    assert response.text.format.name == "Answer"
    parsed = gateway.responses.parse(model="m", input="Hi", text_format=Answer)
    assert parsed.output_parsed == Answer(city="Rome", degrees=40)


def test_the_next_turn_holds_everything_that_the_last_one_told():
    """An agent's loop: the output goes back as it is, with the results behind it."""
    gateway = Gateway(
        lambda request: write(EVENTS, request),
        lambda request: write([MessageStarted(), *block(0, "text", "Done."), MessageEnded(Stop.END)], request),
    )
    tools = [
        {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}, "strict": False}
        for name in ("look", "go")
    ]
    said = [{"role": "user", "content": "Hi"}]
    with gateway.responses.stream(model="m", input=said, tools=tools) as events:
        output = events.get_final_response().output
    said += output
    said += [
        {"type": "function_call_output", "call_id": c.call_id, "output": "ok"}
        for c in output
        if c.type == "function_call"
    ]
    with gateway.responses.stream(model="m", input=said, tools=tools) as events:
        assert events.get_final_response().output_text == "Done."
    user, answer, results = read_request(gateway.asked[1]).turns
    assert user == Turn(Role.USER, (Text("Hi"),))
    assert answer == Turn(
        Role.ASSISTANT,
        (
            Thinking("Hmm.", "sig"),
            Thinking(redacted="xyz"),
            Text('Héllo "\n\u2028'),
            ToolCall("call_1", "look", '{"a": "b"}'),
            ToolCall("call_2", "go", "{}"),
        ),
    )
    assert results.parts == (ToolResult("call_1", (Text("ok"),), "look"), ToolResult("call_2", (Text("ok"),), "go"))


def test_custom_tools_and_namespaces_are_known_to_the_client():
    tools = [
        {"type": "custom", "name": "apply_patch"},
        {"type": "namespace", "name": "docs", "description": "", "tools": [{"type": "function", "name": "search"}]},
    ]
    events = [
        MessageStarted(),
        *block(0, "tool_call", '{"input": "*** Begin"}', id="1", name="apply_patch"),
        *block(1, "tool_call", '{"q": 1}', id="2", name="docs__search"),
        MessageEnded(Stop.TOOL_CALLS),
    ]
    with Gateway(lambda r: write(events, r)).responses.stream(model="m", input="Hi", tools=tools) as stream:
        patch, search = stream.get_final_response().output
    assert (patch.type, patch.name, patch.input) == ("custom_tool_call", "apply_patch", "*** Begin")
    assert (search.namespace, search.name, search.arguments) == ("docs", "search", '{"q": 1}')


def test_an_answer_that_was_cut_says_why():
    *_, last = stream(write([MessageStarted(), *block(0, "text", "x"), MessageEnded(Stop.LENGTH)]))
    assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", "max_output_tokens")
    assert last.response.output[0].status == "incomplete"


# Faults...


def torn(events) -> bytes:
    writer = Writer("m")
    return b"".join(map(writer.write, events)) + writer.fail(
        UpstreamError("the provider's stream ended inside a frame")
    )


def torn_in_passing(events) -> bytes:
    tap = Tap(nothing)
    passed = b"".join(tap.look(raw, frame) for raw, frame in split(write(events)))
    return passed + tap.fail(UpstreamError("the provider's stream ended inside a frame"))


@pytest.mark.parametrize("tear", [torn, torn_in_passing])
@pytest.mark.parametrize("length", [0, 1, 6])
def test_a_fault_in_a_stream_is_raised_with_its_words(tear, length):
    content = tear(EVENTS[:length])
    with pytest.raises(openai.APIError, match="ended inside a frame") as caught:
        list(stream(content))
    assert caught.value.code == "server_error"
    with (
        pytest.raises(openai.APIError, match="ended inside a frame"),
        Gateway(content).responses.stream(model="m", input="Hi") as events,
    ):
        events.get_final_response()


def test_after_the_error_a_client_that_goes_on_reading_sees_the_response_fail():
    lines = [line for line in torn(EVENTS[:3]).splitlines() if line.startswith(b"data: ")]
    failed = json.loads(lines[-1][6:])
    event = openai.types.responses.ResponseFailedEvent.model_validate(failed)
    assert event.response.error.message == "the provider's stream ended inside a frame"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        pytest.param(InvalidRequest("`input` is missing", param="input"), "BadRequestError", id="400"),
        pytest.param(RateLimited("slow", retry_after=1), "RateLimitError", id="429"),
        pytest.param(UpstreamError("torn"), "InternalServerError", id="502"),
    ],
)
def test_an_error_answer_is_raised_with_its_words(error, raised):
    gateway = Gateway(errors.body(error), status=error.status)
    with pytest.raises(getattr(openai, raised), match=error.message) as caught:
        gateway.responses.create(model="m", input="Hi")
    assert (caught.value.param, caught.value.code) == (error.param, error.code)


def test_keepalives_between_events_harm_nobody():
    frames = [f + b"\n\n" for f in write(EVENTS)[:-2].split(b"\n\n")]
    with Gateway(Writer.keepalive("chunk").join([b"", *frames])).responses.stream(model="m", input="Hi") as events:
        assert events.get_final_response().output_text == 'Héllo "\n\u2028'


async def test_the_asynchronous_client_agrees():
    async def chunks():
        for chunk in drip(write(EVENTS)):
            yield chunk

    transport = httpx.MockTransport(lambda request: httpx.Response(200, headers=STREAM, content=chunks()))
    http = httpx.AsyncClient(transport=transport)
    async with (
        openai.AsyncOpenAI(api_key="k", base_url="http://gateway/v1", max_retries=0, http_client=http) as client,
        client.responses.stream(model="m", input="Hi") as events,
    ):
        response = await events.get_final_response()
    assert response.output_text == 'Héllo "\n\u2028'
    assert [item.type for item in response.output] == [
        "reasoning",
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]


@recorded
def test_a_recording_read_and_written_anew_is_the_same_to_the_client(recording):
    before = list(stream(recording.body))[-1].response
    after = list(stream(write(read(recording.body))))[-1].response
    assert after.output_text == before.output_text
    assert [c.arguments for c in after.output if c.type == "function_call"] == [
        c.arguments for c in before.output if c.type == "function_call"
    ]
    assert (after.status, after.usage.total_tokens) == (before.status, before.usage.total_tokens)


def test_the_clients_own_requests_are_read():
    gateway = Gateway(write(EVENTS))
    list(
        gateway.responses.create(
            model="m",
            input=[{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
            instructions="Be brief.",
            stream=True,
            include=["reasoning.encrypted_content"],
            reasoning={"effort": "low", "summary": "auto"},
            text={"verbosity": "low"},
            store=False,
            metadata={"a": "b"},
        )
    )
    request = read_request(gateway.asked[0])
    assert request == asked(
        model="m",
        input="Hi",
        instructions="Be brief.",
        stream=True,
        include=["reasoning.encrypted_content"],
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "low"},
        store=False,
        metadata={"a": "b"},
    )
