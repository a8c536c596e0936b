"""Whatever a provider says no in, its client hears the words of its own dialect: every pair of them, by status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.dialects import simple_chat
from proxy.dialects.anthropic_messages import errors as messages
from proxy.dialects.gemini import errors as gemini
from proxy.dialects.openai_chat import errors as chat
from proxy.dialects.openai_responses import errors as responses
from proxy.errors import GatewayError
from proxy.refusals import read_refusal, refused
from proxy.registry import provider_side
from proxy.requests import Request
from proxy.sse import Decoder

STATUSES = (400, 401, 404, 413, 422, 429, 500, 503, 529)

#: What each maker calls a status, as its API documents it.
OPENAI = {
    400: ("invalid_request_error", "context_length_exceeded"),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    413: ("invalid_request_error", None),
    422: ("invalid_request_error", None),
    429: ("tokens", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("server_error", "overloaded"),
    529: ("server_error", None),
}
ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
GOOGLE = {
    400: "FAILED_PRECONDITION",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    529: "UNAVAILABLE",
}
CLOUDFLARE = {400: 5006, 401: 10000, 404: 3042, 413: 3006, 422: 5004, 429: 3040, 500: 3001, 503: 3002, 529: 3002}
MESSAGE = "no such model"


def body(provider: str, status: int) -> Any:
    match provider:
        case "openai_chat" | "openai_responses":
            type, code = OPENAI[status]
            return {"error": {"message": MESSAGE, "type": type, "param": None, "code": code}}
        case "anthropic_messages":
            return {"type": "error", "error": {"type": ANTHROPIC[status], "message": MESSAGE}, "request_id": "r"}
        case "gemini":
            return {"error": {"code": status, "message": MESSAGE, "status": GOOGLE[status]}}
    return {"success": False, "errors": [{"code": CLOUDFLARE[status], "message": MESSAGE}], "result": None}


PROVIDERS = ("openai_chat", "openai_responses", "anthropic_messages", "gemini", "workers_ai")
#: By the status that the client gets: type and code of OpenAI, Anthropic's type, Google's status, the simple word.
WORDS = {
    400: ("invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT", "invalid_request"),
    404: ("invalid_request_error", "model_not_found", "not_found_error", "NOT_FOUND", "not_found"),
    413: ("invalid_request_error", "payload_too_large", "request_too_large", "INVALID_ARGUMENT", "payload_too_large"),
    422: ("invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT", "invalid_request"),
    429: ("rate_limit_error", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED", "rate_limited"),
    502: ("server_error", "upstream_error", "api_error", "INTERNAL", "upstream_error"),
}
CLIENTS = {
    "openai_chat": chat,
    "openai_responses": responses,
    "anthropic_messages": messages,
    "gemini": gemini,
    "simple_chat": simple_chat,
}


def expected(client: str, provider: str, status: int) -> tuple[str | None, ...]:
    """The words for a status, the provider's own where client and provider speak alike."""
    told = status if status in WORDS else 502
    type, code, anthropic, google, simple = WORDS[told]
    match client:
        case "openai_chat" | "openai_responses":
            if provider.startswith("openai") and told != 502:
                return OPENAI[status]
            return type, code
        case "anthropic_messages":
            return (ANTHROPIC[status] if provider == client and told != 502 else anthropic,)
        case "gemini":
            return (GOOGLE[status] if provider == client and told != 502 else google,)
    return (simple,)


def heard(client: str, told: dict[str, Any]) -> tuple[str | None, ...]:
    error = told["error"]
    match client:
        case "openai_chat" | "openai_responses":
            return error["type"], error["code"]
        case "anthropic_messages":
            assert told["type"] == "error"
            return (error["type"],)
        case "gemini":
            return (error["status"],)
    return (error,)


def message(told: dict[str, Any]) -> str:
    return str(told["details"] if "details" in told else told["error"]["message"])


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_refusal_is_told_in_the_client_s_words(provider, status, client):
    error = refused(status, read_refusal(json.dumps(body(provider, status)).encode()), str)
    assert error.status == (status if status in WORDS else 502)
    told = json.loads(CLIENTS[client].body(error))
    assert heard(client, told) == expected(client, provider, status)
    assert (MESSAGE in message(told)) is (status != 401)
    if client == "gemini":
        assert told["error"]["code"] == error.status


# Inside a stream no status is told but by the words...

FRAME = {
    "openai_chat": b"data: %b\n\n",
    "openai_responses": b"event: error\ndata: %b\n\n",
    "anthropic_messages": b"event: error\ndata: %b\n\n",
    "gemini": b"data: %b\r\n\r\n",
    "workers_ai": b"data: %b\n\n",
}
#: The list of codes is closed there, and others than OpenAI have none of it.
RESPONSES_CODE = {400: "invalid_prompt", 404: "model_not_found", 429: "rate_limit_exceeded"}


def fault(provider: str, status: int) -> GatewayError:
    """What a provider's reader makes of an error that is a frame."""
    side, told = provider_side(provider), body(provider, status)
    if provider == "openai_responses":
        told = {"type": "error", "sequence_number": 1, **told}
    (frame,) = Decoder().feed(FRAME[provider] % json.dumps(told).encode())
    with pytest.raises(GatewayError) as caught:
        list(side.reader(str, Request(None, ())).read(frame))
    return caught.value


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 529])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_error_in_a_stream_is_told_in_the_client_s_words(provider, status, client):
    (frame, *_) = Decoder().feed(CLIENTS[client].frame(fault(provider, status)))
    told = json.loads(frame.data)
    wanted = expected(client, provider, status)
    if client == "openai_responses" and not (provider.startswith("openai") and status in WORDS):
        wanted = wanted[0], RESPONSES_CODE.get(status, "server_error")
    if client == provider == "anthropic_messages" and status == 529:
        wanted = ("overloaded_error",)  # Claude Code waits for it, and asks again
    assert heard(client, told) == wanted
    assert (MESSAGE in message(told)) is (status != 401)


@pytest.mark.parametrize("provider", ["anthropic_messages", "gemini", "workers_ai"])
def test_codes_of_responses_come_from_its_own_list(provider):
    error = refused(413, read_refusal(body(provider, 413)), str)
    assert responses.words(error) == {"code": "invalid_prompt", "message": MESSAGE}
