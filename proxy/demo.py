"""The demo provider: an OpenAI-compatible upstream inside the gateway, to try it without any key.

It listens on a loopback port and wants a token that only this process knows.  It is no model: it says what
the gateway is and quotes what it was asked, the same words for the same question, a "token" being a word.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import math
import re
import secrets
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
import orjson
from aiohttp import web

from proxy.errors import GatewayError, InvalidRequest, Unauthorized

MODEL: Final = "demo"

_PAUSE = 0.015  # seconds between frames: about what a fast model takes for a word
#: Characters of a text that are looked at: the demo shares its event loop with the gateway.
_READ = 1_048_576
_QUOTED = 40  # words

_GREETING = (
    "This is the demo provider of AI Proxy, a gateway that streams the answers of language-model providers to your"
    " tools. It is a small program and not a language model, so it cannot answer, only quote you: {quote}."
    " When streamed, every word leaves in a frame of its own and is passed on the moment it is complete, as a real"
    " provider's would be. For real answers, give the gateway a provider's key (config.toml lists the providers)"
    " and ask for one of that provider's models."
)


# What may be asked; fields that are not named here are accepted and have no effect...

Name = Annotated[str, msgspec.Meta(min_length=1)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Part(msgspec.Struct):
    """A piece of a message; only text is read."""

    type: str
    text: str = ""


class Message(msgspec.Struct):
    """One turn of the conversation."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(part.text[:_READ] for part in self.content)
        return (self.content or "")[:_READ]


class Function(msgspec.Struct):
    """What a tool is called by."""

    name: Name


class Tool(msgspec.Struct):
    """Something that the client can do; only functions are ever called."""

    type: str
    function: Function | None = None


class StreamOptions(msgspec.Struct):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None


class Asked(msgspec.Struct, kw_only=True):
    """What chats and plain completions have in common."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    max_tokens: Positive | None = None

    @property
    def usage_wanted(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def cut(self, text: str) -> tuple[list[str], str]:
        """The words of the answer, each with the space before it, and the finish reason."""
        for stop in [self.stop] if isinstance(self.stop, str) else self.stop or ():
            if stop:
                text = text.partition(stop)[0]
        words = re.findall(r"\s*\S+", text)
        if self.max_tokens is not None and len(words) > self.max_tokens:
            return words[: self.max_tokens], "length"
        return words, "stop"


class Chat(Asked, kw_only=True):
    """POST /v1/chat/completions"""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None

    def __post_init__(self) -> None:
        self.max_tokens = self.max_completion_tokens or self.max_tokens

    @property
    def question(self) -> str:
        """The last thing that the user said."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def tool(self) -> str | None:
        """The function to call: the one that is forced, or that the user has just named."""
        names = [tool.function.name for tool in self.tools or () if tool.function is not None]
        match self.tool_choice:
            case "none":
                return None
            case {"function": {"name": forced}}:
                if forced in names:
                    return str(forced)
                raise InvalidRequest("tool_choice names a function that the tools lack", param="tool_choice")
        # Once the tool has answered, the user's words must not call it again: that would never end.
        if self.messages[-1].role == "user":
            for name in names:
                if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", self.question):
                    return name
        return names[0] if names and self.tool_choice == "required" else None


class Completion(Asked, kw_only=True):
    """POST /v1/completions; a prompt may be text or token numbers."""

    prompt: str | list[str | int | list[int]]


class Embedding(msgspec.Struct):
    """POST /v1/embeddings"""

    model: Name
    input: Name | Annotated[list[Name | int | list[int]], msgspec.Meta(min_length=1, max_length=2048)]
    encoding_format: str | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None


Body = TypeVar("Body")

_AT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")


async def _read(request: web.Request, what: type[Body]) -> Body:
    """The body as ``what``.  Raises `InvalidRequest` that names the field."""
    try:
        return msgspec.json.decode(await request.read(), type=what)
    except msgspec.ValidationError as exc:
        found = _AT.fullmatch(str(exc))
        assert found is not None  # both groups may be empty
        field = found["path"] or ""
        if missing := _MISSING.fullmatch(found["what"]):
            field = f"{field}.{missing['field']}".lstrip(".")
            raise InvalidRequest(f"{field} is missing", param=field) from None
        raise InvalidRequest(f"{field or 'the body'}: {found['what']}", param=field or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f"the body is not the JSON it should be: {exc}") from None


# What is answered...


def _texts(given: str | list[str | int | list[int]], field: str) -> list[str]:
    """A prompt or input as texts; token numbers stand for words."""
    if isinstance(given, str):
        return [given]
    if all(isinstance(item, int) for item in given):
        return [" ".join(map(str, given))]
    texts = []
    for item in given:
        if isinstance(item, int):
            raise InvalidRequest(f"{field} mixes token numbers with texts", param=field)
        texts.append(item if isinstance(item, str) else " ".join(map(str, item)))
    return texts


def _explained(question: str) -> str:
    words = question[:_READ].split()
    more = " …" if len(words) > _QUOTED else ""
    quote = f"“{' '.join(words[:_QUOTED])}{more}”" if words else "you have said nothing yet."
    return _GREETING.format(quote=quote)


def _usage(texts: Sequence[str], words: int) -> dict[str, int]:
    asked = sum(len(text[:_READ].split()) for text in texts)
    return {"prompt_tokens": asked, "completion_tokens": words, "total_tokens": asked + words}


def _vector(text: str, dimensions: int) -> list[float]:
    """Counts of hashed words, of length 1: texts that share words are near each other."""
    counts = [0.0] * dimensions
    for word in text[:_READ].lower().split() or [text]:
        counts[zlib.crc32(word.encode()) % dimensions] += 1.0
    norm = math.hypot(*counts)
    return [count / norm for count in counts]


def _head(kind: str, prefix: str, model: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def _call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _choice(finish: str | None, **what: Any) -> dict[str, Any]:
    return {"index": 0, **what, "logprobs": None, "finish_reason": finish}


def _chat_deltas(tool: str | None, words: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A streamed chat, piece by piece; the arguments come in fragments as well."""
    if tool is None:
        yield {"role": "assistant", "content": ""}
        yield from ({"content": word} for word in words)
        return
    yield {"role": "assistant", "content": None}
    yield {"tool_calls": [{"index": 0, **_call(tool, "")}]}
    yield from ({"tool_calls": [{"index": 0, "function": {"arguments": brace}}]} for brace in "{}")


def _frames(head: dict[str, Any], choices: Sequence[dict[str, Any]], usage: dict[str, int] | None) -> Iterator[bytes]:
    """``usage``: where it was asked for, every chunk has the field and only the last one has the figures."""
    without = {} if usage is None else {"usage": None}
    for choice in choices:
        yield _frame({**head, "choices": [choice], **without})
    if usage is not None:
        yield _frame({**head, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(chunk)


# The server...


async def _breathe() -> None:
    await asyncio.sleep(_PAUSE)


class Demo:
    """The provider's server: between `start` and `close` it answers at ``base_url`` to holders of ``api_key``.

    ``pause`` is awaited between two frames of a stream.
    """

    def __init__(self, pause: Callable[[], Awaitable[object]] = _breathe) -> None:
        self.api_key = secrets.token_urlsafe(32)
        self._pause = pause
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """Without a trailing /v1.  Raises ``RuntimeError`` while nothing listens."""
        if self._runner is None:
            raise RuntimeError("the demo provider is not started")
        host, port = self._runner.addresses[0]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Listen on a loopback port that the system chooses."""
        if self._runner is not None:
            return
        # No limit of its own: what arrives has passed the gateway's.
        app = web.Application(middlewares=[self._guard], client_max_size=0)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/embeddings", self._embed)
        # With cancellation, an answer ends at its next pause once its client has left.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def close(self) -> None:
        """Stop listening and cut what is being answered: the gateway has drained before."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Admit this process only, and tell every fault in OpenAI's envelope."""
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        try:
            if not hmac.compare_digest(given, b"Bearer " + self.api_key.encode()):
                raise Unauthorized("the demo provider serves its own gateway only")
            return await handler(request)
        except GatewayError as exc:
            return _refusal(exc.status, exc.message, exc.param, exc.code)
        except web.HTTPException as exc:
            return _refusal(exc.status, f"{request.method} {request.path}: {exc.reason}", None, None)

    async def _models(self, request: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "ai-proxy"}
        return _json({"object": "list", "data": [model]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        chat = await _read(request, Chat)
        tool = chat.tool
        words, finish = chat.cut(_explained(chat.question)) if tool is None else ([], "tool_calls")
        usage = _usage([message.text for message in chat.messages], len(words) if tool is None else 1)
        if chat.stream:
            head = _head("chat.completion.chunk", "chatcmpl", chat.model)
            pieces = [_choice(None, delta=delta) for delta in _chat_deltas(tool, words)]
            pieces.append(_choice(finish, delta={}))
            return await self._stream(request, _frames(head, pieces, usage if chat.usage_wanted else None))
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words), "refusal": None}
        if tool is not None:
            message |= {"content": None, "tool_calls": [_call(tool, "{}")]}
        head = _head("chat.completion", "chatcmpl", chat.model)
        return _json({**head, "choices": [_choice(finish, message=message)], "usage": usage})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request, Completion)
        prompts = _texts(asked.prompt, "prompt")
        words, finish = asked.cut(_explained(" ".join(prompts)))
        usage = _usage(prompts, len(words))
        head = _head("text_completion", "cmpl", asked.model)
        if asked.stream:
            pieces = [_choice(None, text=word) for word in words] + [_choice(finish, text="")]
            return await self._stream(request, _frames(head, pieces, usage if asked.usage_wanted else None))
        return _json({**head, "choices": [_choice(finish, text="".join(words))], "usage": usage})

    async def _embed(self, request: web.Request) -> web.Response:
        asked = await _read(request, Embedding)
        if asked.encoding_format not in (None, "float", "base64"):
            raise InvalidRequest("encoding_format is neither float nor base64", param="encoding_format")
        texts = _texts(asked.input, "input")
        data: list[dict[str, Any]] = []
        for index, text in enumerate(texts):
            vector = _vector(text, asked.dimensions or 256)
            packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
            embedding = packed if asked.encoding_format == "base64" else vector
            data.append({"object": "embedding", "index": index, "embedding": embedding})
            await asyncio.sleep(0)  # the gateway's streams go on between two texts
        usage = _usage(texts, 0)
        del usage["completion_tokens"]  # there are none, in no answer of this kind
        return _json({"object": "list", "data": data, "model": asked.model, "usage": usage})

    async def _stream(self, request: web.Request, frames: Iterator[bytes]) -> web.StreamResponse:
        head = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=head)
        await response.prepare(request)
        await response.write(next(frames))
        for frame in frames:
            await self._pause()
            await response.write(frame)
        await response.write_eof()
        return response


def _refusal(status: int, message: str, param: str | None, code: str | None) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return _json({"error": error}, status)


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
