"""Forty habits of providers, by their numbers, and what the gateway makes of each on purpose.

Between two sides of one dialect bytes pass unchanged wherever a client can bear them; what a test
says of clients is shown where its harm would be done: in what passes, in what is said anew, or both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from proxy.dialects.openai_chat import errors
from proxy.dialects.openai_chat.tap import ChatTap
from proxy.events import Answer, Block, Usage
from proxy.pipes import Passthrough, Translation
from proxy.registry import client_side, fold, provider_side
from proxy.requests import Request, Role, Text, Turn
from tests.dialects.openai_chat import nothing
from tests.whatwg import interpret

if TYPE_CHECKING:
    from proxy.errors import GatewayError
    from proxy.pipes import Pipe

#: Dialects as clients speak them.
CLIENTS = ("openai_chat", "simple_chat", "anthropic_messages", "openai_responses", "gemini")


class Told(NamedTuple):
    """What a client was told, and how the pipe thinks that it ended."""

    out: bytes
    error: GatewayError | None
    usage: Usage | None
    done: bool

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [orjson.loads(event.data) for event in interpret(self.out) if event.data != b"[DONE]"]

    @property
    def deltas(self) -> list[dict[str, Any]]:
        """Of chat completion chunks."""
        return [choice["delta"] for frame in self.frames for choice in frame["choices"]]

    @property
    def text(self) -> str:
        return "".join(delta.get("content") or "" for delta in self.deltas)

    @property
    def finishes(self) -> list[str]:
        reasons = [choice.get("finish_reason") for frame in self.frames for choice in frame["choices"]]
        return [reason for reason in reasons if reason]


def fed(pipe: Pipe, *pieces: bytes) -> Told:
    """Feed a pipe as the relay does: up to the end mark or an error, else up to the end of the body."""
    out = b""
    for piece in pieces:
        out += pipe.feed(piece)
        if pipe.done or pipe.error:
            break
    else:
        out += pipe.end()
    return Told(out, pipe.error, pipe.usage, pipe.done)


def passing(*, asked: bool = False, choices: int = 1, max_frame: int = 2**20) -> Passthrough:
    """Chat completions for a client that speaks them too."""
    return Passthrough(ChatTap(nothing, include_usage=asked, choices=choices), errors.frame, max_frame)


def request(**fields: Any) -> Request:
    return Request("m", (Turn(Role.USER, (Text("Hi"),)),), stream=True, **fields)


def translating(provider: str = "openai_chat", client: str = "openai_chat", **fields: Any) -> Translation:
    """Any provider for any client, who knows the model as `alias`."""
    asked, side = request(**fields), provider_side(provider)
    writer = client_side(client).writer("alias", asked, "req_1")
    return Translation(side.reader(nothing, asked), writer, writer.fail, 2**20, side.decoder(2**20))


def anew(*pieces: bytes, provider: str = "openai_chat", client: str = "openai_chat", **fields: Any) -> Told:
    """A stream said anew."""
    return fed(translating(provider, client, **fields), *pieces)


def heard(wire: bytes, provider: str = "openai_chat") -> Answer:
    """What the waist understood of a stream."""
    side, answer = provider_side(provider), Answer()
    reader, decoder = side.reader(nothing, request()), side.decoder(2**20)
    for frame in decoder.feed(wire):
        for event in reader.read(frame):
            answer.add(event)
    if not reader.done:
        assert reader.finished
        for event in reader.end():
            answer.add(event)
    return answer


def calls(answer: Answer) -> list[tuple[str, str]]:
    """Names and arguments of the tools that were called."""
    return [(block.name, block.text) for block in answer.blocks if block.block is Block.TOOL_CALL]


def thoughts(answer: Answer) -> str:
    return "".join(block.text for block in answer.blocks if block.block is Block.THINKING)


def read_whole(body: Any, provider: str) -> Answer:
    return fold(provider_side(provider).read_whole(orjson.dumps(body), nothing, request()))
