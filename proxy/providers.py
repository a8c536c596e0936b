"""What each kind of provider expects, as values: where to ask, how to show the key, what it does not know."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Conventions:
    """One kind.  ``paths`` maps our operations to paths below the base URL; a missing one is not offered.

    ``key_header`` and ``key_prefix`` show the key; ``roles`` maps message roles that the kind
    does not know to ones that it does.
    """

    paths: dict[str, str]
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    roles: dict[str, str] = field(default_factory=dict)


_OPENAI = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
_CHAT = {"chat": "/v1/chat/completions"}
#: To every provider but OpenAI, whose invention it is.
_NO_DEVELOPER = {"developer": "system"}

KINDS: dict[str, Conventions] = {
    "openai": Conventions(_OPENAI),
    "deepseek": Conventions({**_CHAT, "completions": "/beta/completions"}, roles=_NO_DEVELOPER),
    "workers-ai": Conventions({**_CHAT, "embeddings": "/v1/embeddings"}, roles=_NO_DEVELOPER),
    "ollama": Conventions(_OPENAI, roles=_NO_DEVELOPER),
    "demo": Conventions(_OPENAI),
    # Both offer an OpenAI-compatible endpoint beside their own.
    "anthropic": Conventions(_CHAT, roles=_NO_DEVELOPER),
    "gemini": Conventions(
        {"chat": "/v1beta/openai/chat/completions", "embeddings": "/v1beta/openai/embeddings"}, roles=_NO_DEVELOPER
    ),
}
