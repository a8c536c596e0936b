"""What a client asked for, read as far as it must be to find a deployment.

`meet` then says how that deployment is asked: in the client's own dialect, where bytes pass as
they are, or across the waist.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import msgspec

from proxy.bridges import Crossing, Same
from proxy.dialects.openai_chat import request as chat_request
from proxy.dialects.openai_chat import whole as chat_whole
from proxy.registry import client_side

if TYPE_CHECKING:
    from proxy.bridges import Bridge, Fail
    from proxy.events import Usage
    from proxy.refusals import Scrub
    from proxy.requests import Request
    from proxy.routing.table import Target
    from proxy.state.memory import Memory

_BETA = re.compile(r"[A-Za-z0-9._, -]{1,1000}")


class Asked(Protocol):
    """What a client asked for, read as far as routing needs it; ``operation`` is what kind of thing it is."""

    operation: str
    model: str | None
    stream: bool

    def meet(self, target: Target) -> Bridge:
        """Say how this deployment is to be asked.  Raises ``InvalidRequest`` where it cannot be."""


class SimpleAsked:
    """`/api/chat`: a dialect that no provider speaks."""

    operation = "chat"

    def __init__(self, body: bytes, scrub: Scrub, fail: Fail) -> None:
        from proxy.dialects import simple_chat

        self._request = simple_chat.parse(chat_request.split(body))
        self.model = self._request.model
        self.stream = self._request.stream
        self._scrub = scrub
        self._fail = fail

    def meet(self, target: Target) -> Bridge:
        return Crossing(client_side("simple_chat"), self._request, target, self._scrub, self._fail)


class DialectAsked:
    """Messages, Responses or Gemini: split at the top level, and read whole only where the dialects differ."""

    operation = "chat"

    def __init__(
        self,
        body: bytes,
        dialect: str,
        scrub: Scrub,
        fail: Fail,
        *,
        request_id: str = "",
        model: str | None = None,
        stream: bool | None = None,
        form: str = "",
        beta: str = "",
        memory: Memory | None = None,
    ) -> None:
        """``model`` and ``stream`` where the path says them; ``form`` is the client's variant of the dialect.

        ``beta`` names the features of Anthropic's that the body uses.
        """
        self.beta = beta.encode() if _BETA.fullmatch(beta) else b""
        self.body = body
        self.dialect = dialect
        self.fields = chat_request.split(body)
        self.model = model or chat_request.model_of(self.fields) or None
        self.stream = stream if stream is not None else chat_request.flag(self.fields, "stream")
        self._form = form or dialect
        self._scrub = scrub
        self._fail = fail
        self._request_id = request_id
        self._memory = memory
        self._read: Request | None = None

    def meet(self, target: Target) -> Bridge:
        if target.speaks(self.dialect) and self._form == self.dialect:
            return Same(self, self._scrub, self._fail)
        side = client_side(self._form)
        return Crossing(side, self.request(), target, self._scrub, self._fail, self._request_id, self._memory)

    def request(self) -> Request:
        """The whole of it, in the waist's words.  Raises ``InvalidRequest`` naming the field to mend."""
        if self._read is None:
            self._read = self._in_full()
        return self._read

    def _in_full(self) -> Request:
        match self.dialect:
            case "anthropic_messages":
                from proxy.dialects.anthropic_messages import request as messages

                return messages.read(self.body)
            case "openai_responses":
                from proxy.dialects.openai_responses import request as responses

                return responses.read(self.body)
            case _:
                from proxy.dialects.gemini import request as gemini

                return gemini.read(self.body, model=self.model, stream=self.stream)


#: What counting is called, by dialect.
COUNTING = {"anthropic_messages": "count_tokens", "gemini": "gemini_count"}


class CountAsked:
    """How many tokens a conversation has, asked of a provider that counts."""

    stream = False

    def __init__(self, asked: DialectAsked, scrub: Scrub) -> None:
        self.operation = COUNTING[asked.dialect]
        self.model = asked.model
        self._asked = asked
        self._scrub = scrub

    def meet(self, target: Target) -> Bridge:
        return _Counting(self._asked, self._scrub)


class _Counting(Same):
    def __init__(self, asked: DialectAsked, scrub: Scrub) -> None:
        super().__init__(asked, scrub, lambda error: b"")
        self.dialect = COUNTING[asked.dialect]
        self._told = "totalTokens" if asked.dialect == "gemini" else "input_tokens"

    def body(self, upstream: str, target: Target) -> bytes:
        if self.dialect != COUNTING["gemini"]:
            return super().body(upstream, target)
        fields = self._asked.fields
        try:  # the path names the model; so does a whole request, if there is one
            inner = msgspec.json.decode(fields["generateContentRequest"], type=dict[str, msgspec.Raw])
        except (KeyError, msgspec.DecodeError):
            return self._asked.body
        name = f"models/{upstream.removeprefix('models/')}"
        return msgspec.json.encode({**fields, "generateContentRequest": {**inner, "model": name}})

    def whole(self, body: bytes, model: str) -> tuple[bytes, Usage | None]:
        chat_whole.check(body, self._scrub, self._told, int)
        return body, None

    def keepalive(self, mode: str) -> bytes:
        return b""
