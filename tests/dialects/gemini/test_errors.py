"""Faults in Google's words, as the official client reads them."""

from __future__ import annotations

import orjson
import pytest

from proxy.dialects.gemini.errors import STATUS, body
from proxy.errors import Kind, Maker, UpstreamRefused
from tests.test_errors import EVERY

#: The words of the contract, by kind.
WORDS = {
    "invalid_request": "INVALID_ARGUMENT",
    "unauthorized": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "payload_too_large": "INVALID_ARGUMENT",
    "rate_limited": "RESOURCE_EXHAUSTED",
    "internal_error": "INTERNAL",
    "upstream_error": "INTERNAL",
    "overloaded": "UNAVAILABLE",
    "timeout": "DEADLINE_EXCEEDED",
}


def test_every_kind_has_its_word():
    assert STATUS == WORDS
    assert set(STATUS) == set(Kind)


@pytest.mark.parametrize(("error", "kind", "status", "code"), EVERY)
def test_body(error, kind, status, code):
    told = body(error)
    assert told.startswith(b'{"error":')  # the client looks for it as the first key
    assert orjson.loads(told) == {"error": {"code": status, "message": error.message, "status": WORDS[kind]}}


@pytest.mark.parametrize(
    ("word", "maker", "told"),
    [
        pytest.param("FAILED_PRECONDITION", Maker.GOOGLE, "FAILED_PRECONDITION", id="google-s-own"),
        pytest.param("FAILED_PRECONDITION", Maker.OPENAI, "INVALID_ARGUMENT", id="another-s"),
        pytest.param("A_WORD_OF_TOMORROW", Maker.GOOGLE, "INVALID_ARGUMENT", id="unknown"),
    ],
)
def test_a_providers_own_word_passes_where_it_is_google_s(word, maker, told):
    error = UpstreamRefused("no", status=400, type=word, maker=maker)
    assert orjson.loads(body(error))["error"]["status"] == told
