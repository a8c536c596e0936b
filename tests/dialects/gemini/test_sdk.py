"""Google's own SDK reads what the writer writes, and the reader of requests reads what it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from proxy.dialects.gemini.listing import Listed, counted, models
from proxy.dialects.gemini.request import read, read_count
from proxy.dialects.gemini.writer import Writer, whole
from proxy.errors import Kind, NotFound, UpstreamError
from proxy.events import Block, MessageEnded, MessageStarted, Stop, Usage
from proxy.requests import Choice, Role, Text, ToolCall, ToolResult
from tests.dialects.gemini import fold
from tests.dialects.gemini.test_writer import block

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.requests import Request

genai = pytest.importorskip("google.genai")
types, errors = genai.types, genai.errors

# The SDK subclasses aiohttp's session, which aiohttp does not like to see.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

SIGNATURE = "QUJD"
ENDED = MessageEnded(Stop.END, Usage(7, 43, reasoning=40))
CALLS = [
    *block(0, Block.THINKING, "h", "m"),
    *block(1, Block.TEXT, "I ", "look\u2028."),
    *block(2, Block.TOOL_CALL, '{"city":', '"Ulm"}', id="c1", name="weather", signature=SIGNATURE),
    *block(3, Block.TOOL_CALL, '{"city":"Köln"}', id="c2", name="weather"),
]


class Server:
    """Answers with what it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.error: Any = None
        self.asked: list[Request] = []
        self.paths: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        name, _, method = request.match_info["call"].partition(":")
        body = await request.read()
        if method == "countTokens":
            self.asked.append(read_count(body, model=name))
            return web.Response(body=counted(8), content_type="application/json")
        self.asked.append(asked := read(body, model=name, stream=method == "streamGenerateContent"))
        events = [MessageStarted("r1", "", Usage(7)), *self.events]
        if not asked.stream:
            if self.error is not None:
                told = Writer(name, array=True).fail(self.error)
                return web.Response(body=told[1:-1], status=self.error.status, content_type="application/json")
            return web.Response(body=whole(fold(events), name, asked), content_type="application/json")
        array = request.query.get("alt") != "sse"
        writer = Writer(name, asked, array=array)
        response = web.StreamResponse()
        response.content_type = "application/json" if array else "text/event-stream"
        await response.prepare(request)
        for event in events:
            if out := writer.write(event):
                await response.write(out)
        if self.error is not None:
            await response.write(writer.fail(self.error))
        return response

    async def listing(self, request: web.Request) -> web.Response:
        return web.Response(body=models([Listed("m", "M", context=4096)]), content_type="application/json")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server, aiohttp_server: Any) -> AsyncIterator[Any]:
    app = web.Application()
    app.router.add_post("/{version}/models/{call}", server.answer)  # the version changes with the SDK's
    app.router.add_get("/{version}/models", server.listing)
    running = await aiohttp_server(app)
    options = types.HttpOptions(base_url=str(running.make_url("/")))
    sdk = genai.Client(api_key="sk-test", http_options=options).aio
    yield sdk
    await sdk.aclose()


WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="Tell it.",
            parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"]),
        )
    ]
)


async def stream(client: Any, contents: Any = "hi", **config: Any) -> list[Any]:
    config = types.GenerateContentConfig(**config)
    return [c async for c in await client.models.generate_content_stream(model="m", contents=contents, config=config)]


async def test_a_stream_of_text(client, server):
    server.events = [*block(0, Block.TEXT, "Hel", "lo"), ENDED]
    chunks = await stream(client)
    assert server.paths[0].endswith("/models/m:streamGenerateContent?alt=sse")
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", ""]
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    counts = chunks[-1].usage_metadata
    assert (counts.prompt_token_count, counts.candidates_token_count, counts.thoughts_token_count) == (7, 3, 40)
    assert {(chunk.model_version, chunk.response_id) for chunk in chunks} == {("m", "r1")}


async def test_thoughts_and_calls(client, server):
    server.events = [*CALLS, ENDED]
    chunks = await stream(client, tools=[WEATHER], thinking_config=types.ThinkingConfig(include_thoughts=True))
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    assert "".join(part.text for part in parts if part.thought) == "hm"
    assert "".join(part.text for part in parts if part.text and not part.thought) == "I look\u2028."
    calls = [part for part in parts if part.function_call]
    assert [(c.function_call.id, c.function_call.name, c.function_call.args) for c in calls] == [
        ("c1", "weather", {"city": "Ulm"}),
        ("c2", "weather", {"city": "Köln"}),
    ]
    assert [call.thought_signature for call in calls] == [b"ABC", None]
    (asked,) = server.asked
    assert asked.tools[0].schema == {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    assert asked.reasoning is not None
    assert asked.reasoning.shown


async def test_a_chat_sends_calls_results_and_seals_back(client, server):
    """The SDK's chat sends a streamed answer back as it came, a content for each chunk."""
    config = types.GenerateContentConfig(
        system_instruction="Be brief",
        tools=[WEATHER],
        tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY")),
        max_output_tokens=64,
        safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
    )
    chat = client.chats.create(model="m", config=config)
    server.events = [*CALLS, ENDED]
    async for _ in await chat.send_message_stream("weather?"):
        pass
    server.events = [*block(0, Block.TEXT, "done"), ENDED]
    answers = [
        types.Part(function_response=types.FunctionResponse(id=id, name="weather", response={"output": said}))
        for id, said in (("c1", "rain"), ("c2", "sun"))
    ]
    async for _ in await chat.send_message_stream(answers):
        pass
    asked = server.asked[-1]
    assert [text.text for text in asked.system] == ["Be brief"]
    assert asked.max_tokens == 64
    assert asked.tool_choice is not None
    assert asked.tool_choice.mode is Choice.REQUIRED
    assert "safetySettings" in asked.dropped
    assert [(turn.role, turn.parts) for turn in asked.turns] == [
        (Role.USER, (Text("weather?"),)),
        (
            Role.ASSISTANT,
            (
                Text("I look\u2028."),
                ToolCall("c1", "weather", '{"city":"Ulm"}', SIGNATURE),
                ToolCall("c2", "weather", '{"city":"Köln"}'),
            ),
        ),
        (
            Role.TOOL,
            (ToolResult("c1", (Text("rain"),), "weather"), ToolResult("c2", (Text("sun"),), "weather")),
        ),
    ]


async def test_a_whole_answer(client, server):
    server.events = [*CALLS, ENDED]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    config = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=schema)
    answer = await client.models.generate_content(model="m", contents="hi", config=config)
    assert [call.args for call in answer.function_calls] == [{"city": "Ulm"}, {"city": "Köln"}]
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.usage_metadata.total_token_count == 50
    (asked,) = server.asked
    assert asked.response_format is not None
    assert asked.response_format.schema == schema


@pytest.mark.parametrize("events", [[], block(0, Block.TEXT, "Hel")], ids=["first", "in-the-middle"])
async def test_a_fault_in_a_stream_is_raised(client, server, events):
    server.events, server.error = events, UpstreamError("the provider broke")
    with pytest.raises(errors.ServerError) as failed:
        await stream(client)
    assert (failed.value.code, failed.value.status, failed.value.message) == (502, "INTERNAL", "the provider broke")


async def test_a_refusal_is_raised(client, server):
    server.error = NotFound("no such model")
    with pytest.raises(errors.ClientError) as failed:
        await client.models.generate_content(model="m", contents="hi")
    assert (failed.value.code, failed.value.status, failed.value.message) == (404, "NOT_FOUND", "no such model")
    assert server.error.kind is Kind.NOT_FOUND


async def test_models_and_counts(client, server):
    assert [(m.name, m.display_name, m.input_token_limit) async for m in await client.models.list()] == [
        ("models/m", "M", 4096)
    ]
    assert (await client.models.count_tokens(model="m", contents="hi")).total_tokens == 8
    assert server.asked[0].turns[0].parts == (Text("hi"),)
