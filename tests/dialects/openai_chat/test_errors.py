"""Faults in OpenAI's words, as the official client reads them."""

from __future__ import annotations

import orjson
import pytest
from openai._streaming import SSEDecoder

from proxy.dialects.openai_chat.errors import TYPE, body, frame
from proxy.errors import GatewayError, InvalidRequest, Kind, UpstreamRefused
from tests.test_errors import EVERY

#: The words of the contract, by kind.
WORDS = {
    "invalid_request": "invalid_request_error",
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "not_found": "invalid_request_error",
    "payload_too_large": "invalid_request_error",
    "rate_limited": "rate_limit_error",
    "internal_error": "server_error",
    "upstream_error": "server_error",
    "overloaded": "server_error",
    "timeout": "server_error",
}


def test_every_kind_has_its_word():
    assert TYPE == WORDS
    assert set(TYPE) == set(Kind)


@pytest.mark.parametrize(("error", "kind", "status", "code"), EVERY)
def test_body(error, kind, status, code):
    assert orjson.loads(body(error)) == {
        "error": {"message": error.message, "type": WORDS[kind], "param": None, "code": code}
    }


def test_the_field_to_mend_is_named():
    told = orjson.loads(body(InvalidRequest("`model` must be a string", param="model")))["error"]
    assert told["param"] == "model"


def test_a_providers_own_words_pass():
    error = UpstreamRefused("too fast", status=429, type="tokens", param="x", code="slow_down")
    assert orjson.loads(body(error))["error"] == {
        "message": "too fast",
        "type": "tokens",
        "param": "x",
        "code": "slow_down",
    }


@pytest.mark.parametrize(
    "message", ["a\r\nb\n\ndata: [DONE]\n\n", 'with "quotes"', "\u2028\u0085🌍", "", "\x00\x1b[31m"]
)
def test_a_frame_is_one_event_whatever_the_message(message):
    (event,) = SSEDecoder().iter_bytes(iter([frame(GatewayError(message))]))
    assert event.event is None
    assert event.json()["error"]["message"] == message
