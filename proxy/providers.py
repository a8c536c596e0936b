"""What each kind of provider expects, as values: where to ask, how to show the key, what it does not know."""

from __future__ import annotations

from msgspec import Struct

from proxy.requests import Quirks

#: The rest of a path that the model's name stands in.
MODEL = "{model}"


class Conventions(Struct, frozen=True):
    """One kind.

    ``speaks`` maps dialects to paths below the base URL; the first is the one that strangers are
    translated to.  A path may be another where a stream is asked for: ``DIALECT:stream``.
    ``operations`` are paths for what is passed on untranslated.
    ``key_header`` and ``key_prefix`` show the key; ``headers`` go along with every request.
    """

    speaks: dict[str, str]
    operations: dict[str, str] = {}
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    headers: dict[str, str] = {}
    quirks: Quirks = Quirks()

    @property
    def paths(self) -> dict[str, str]:
        """Every path by what it is for."""
        return {**self.speaks, **self.operations}


_CHAT = {"openai_chat": "/v1/chat/completions"}
_OPENAI = {"completions": "/v1/completions", "embeddings": "/v1/embeddings"}
#: To every provider but OpenAI, whose invention it is.
_NO_DEVELOPER = {"developer": "system"}

KINDS: dict[str, Conventions] = {
    "openai": Conventions(_CHAT, _OPENAI),
    "deepseek": Conventions(
        _CHAT,
        {"completions": "/beta/completions"},
        quirks=Quirks(roles=_NO_DEVELOPER, return_reasoning=True),
    ),
    "workers-ai": Conventions(_CHAT, {"embeddings": "/v1/embeddings"}, quirks=Quirks(roles=_NO_DEVELOPER)),
    "ollama": Conventions(_CHAT, _OPENAI, quirks=Quirks(roles=_NO_DEVELOPER)),
    "demo": Conventions(_CHAT, _OPENAI),
    "anthropic": Conventions(
        {"anthropic_messages": "/v1/messages"},
        {"count_tokens": "/v1/messages/count_tokens"},
        key_header="x-api-key",
        key_prefix="",
        headers={"anthropic-version": "2023-06-01"},
        quirks=Quirks(default_max_tokens=8192),
    ),
    "gemini": Conventions(
        {
            "gemini": f"/v1beta/models/{MODEL}:generateContent",
            "gemini:stream": f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
        },
        {"gemini_count": f"/v1beta/models/{MODEL}:countTokens"},
        key_header="x-goog-api-key",
        key_prefix="",
    ),
}

#: `endpoint = "native"` of kind workers-ai.
WORKERS_AI_NATIVE = Conventions(
    {"workers_ai": f"/run/{MODEL}"},
    {"embeddings": "/v1/embeddings"},
    quirks=Quirks(roles=_NO_DEVELOPER, flat_content=True, default_max_tokens=2048),
)
#: `responses = true` of kind openai, the default for OpenAI itself.
OPENAI_RESPONSES = Conventions(
    {**_CHAT, "openai_responses": "/v1/responses"},
    _OPENAI,
    quirks=Quirks(max_tokens_field="max_completion_tokens"),
)
#: `endpoint = "responses"` of kind openai: strangers are translated to Responses, and chat clients are strangers.
RESPONSES_ONLY = Conventions(
    {"openai_responses": "/v1/responses"},
    _OPENAI,
    quirks=Quirks(tool_id="[!-~]{1,64}"),
)


def conventions(kind: str, *, endpoint: str = "openai", responses: bool = False) -> Conventions:
    """Find what a provider of this kind expects, asked at this endpoint."""
    match kind, endpoint:
        case "workers-ai", "native":
            return WORKERS_AI_NATIVE
        case "openai", "responses":
            return RESPONSES_ONLY
        case "openai", _ if responses:
            return OPENAI_RESPONSES
    return KINDS[kind]
