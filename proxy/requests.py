"""What a client asks for, whatever the dialect: the waist of the hourglass.

A client's dialect reads its body into a `Request`; a provider's dialect writes its body from one.
What only one dialect knows rides in ``extras`` under that dialect's name, for the case that the
other side speaks it too.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

#: A cache marker as Anthropic spells it: `{"type": "ephemeral", "ttl": …}`.
Cache: TypeAlias = dict[str, Any]


# What is said...


class Text(Struct, frozen=True):
    """Words."""

    text: str
    cache: Cache | None = None


class Image(Struct, frozen=True):
    """A picture: a ``url``, or base64 ``data`` with its ``media_type``."""

    url: str = ""
    data: str = ""
    media_type: str = ""
    detail: str = ""
    cache: Cache | None = None


class Audio(Struct, frozen=True):
    """Sound, in base64; ``format`` is `wav`, `mp3`, …"""

    data: str
    format: str


class Document(Struct, frozen=True):
    """A file: a ``url``, base64 ``data`` with its ``media_type``, plain ``text``, or the provider's ``file_id``."""

    url: str = ""
    data: str = ""
    text: str = ""
    media_type: str = ""
    name: str = ""
    file_id: str = ""
    cache: Cache | None = None


class Thinking(Struct, frozen=True):
    """What a model thought before; it goes back unchanged to the provider that signed it.

    ``redacted`` is the opaque data of thoughts that were not shown.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""


def marked(seal: str) -> bool:
    """Did a dialect make this seal that marks its own?  What providers of other dialects sign is base64."""
    return ":" in seal


class ToolCall(Struct, frozen=True):
    """A call that a model made; ``arguments`` is JSON as text, which may be broken where the answer was cut."""

    id: str
    name: str
    arguments: str = ""
    #: What Gemini calls a thought signature.
    signature: str = ""
    cache: Cache | None = None


class ToolResult(Struct, frozen=True):
    """What came of a call; ``name`` is the tool's, where the dialect says it."""

    id: str
    parts: tuple[Text | Image | Document, ...] = ()
    name: str = ""
    error: bool = False
    cache: Cache | None = None


def failed(text: str) -> str:
    """Say in words that a call failed, for dialects that have no flag for it."""
    if "error" in text[:40].lower():
        return text
    return f"Error: {text}" if text else "Error"


class Refusal(Struct, frozen=True):
    """A model's no, as an earlier turn."""

    text: str


Part: TypeAlias = Text | Image | Audio | Document | Thinking | ToolCall | ToolResult | Refusal


class Role(StrEnum):
    """Who speaks.  Tool results have turns of their own, which follow the calls."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Turn(Struct, frozen=True):
    """One speaker's parts; a TOOL turn holds ``ToolResult`` only.  ``name`` tells speakers of a role apart."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""


# What may be used, and how...


class Tool(Struct, frozen=True):
    """A function that the model may call; ``schema`` is the JSON schema of its arguments."""

    name: str
    description: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache: Cache | None = None


class Choice(StrEnum):
    """Whether tools are to be called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


class ToolChoice(Struct, frozen=True):
    """``name`` is the tool's where it is NAMED."""

    mode: Choice
    name: str = ""


class ResponseFormat(Struct, frozen=True):
    """JSON is wanted: any (``schema`` is None), or one that fits."""

    schema: dict[str, Any] | None = None
    name: str = "answer"
    strict: bool | None = None
    description: str = ""


class Reasoning(Struct, frozen=True):
    """How much to think.

    ``effort`` is a word (none, minimal, low, medium, high, xhigh, max), ``budget`` tokens; 0 is off.
    ``shown``: the thoughts, or a summary of them, are wanted in the answer.
    """

    effort: str = ""
    budget: int | None = None
    shown: bool | None = None


class Request(Struct, frozen=True):
    """A conversation to go on with; None leaves a setting to the provider."""

    model: str | None
    turns: tuple[Turn, ...]
    system: tuple[Text, ...] = ()
    stream: bool = False
    #: The client wants to be told usage inside a stream.
    include_usage: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    #: How many answers (`n`).
    answers: int = 1
    #: How many alternatives to each token are wanted; None: no logprobs.
    logprobs: int | None = None
    response_format: ResponseFormat | None = None
    reasoning: Reasoning | None = None
    verbosity: str = ""
    user: str = ""
    #: Dialect → fields that only it knows, as the client sent them.
    extras: dict[str, dict[str, Any]] = {}
    #: Fields of the client's body that the waist has no place for.
    dropped: tuple[str, ...] = ()


def cached(request: Request) -> bool:
    """Does anything in it bear a cache marker?"""
    parts = [part for turn in request.turns for part in turn.parts]
    inner = [part for result in parts if isinstance(result, ToolResult) for part in result.parts]
    return any(getattr(one, "cache", None) is not None for one in (*request.system, *request.tools, *parts, *inner))


# What a provider expects...


class Quirks(Struct, frozen=True):
    """Conventions of a provider that change how a request is written: values, never branches on its name."""

    #: Sent where the client names no limit and the dialect wants one.
    default_max_tokens: int = 4096
    #: OpenAI's reasoning models refuse `max_tokens`.
    max_tokens_field: str = "max_tokens"
    #: The provider takes `stream_options`.
    ask_usage: bool = True
    #: Message roles that the provider does not know → ones that it does.
    roles: dict[str, str] = {}
    #: Request fields that the provider refuses.
    drop: tuple[str, ...] = ()
    #: Content must be one string, never an array of parts.
    flat_content: bool = False
    #: Tool call ids must match: a regular expression, or "" for any.
    tool_id: str = ""
    #: Thoughts of earlier turns with tool calls go back as `reasoning_content`.
    return_reasoning: bool = False
