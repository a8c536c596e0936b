"""What must not leave the gateway is taken out of what leaves it."""

from __future__ import annotations

import pytest

from proxy.scrub import scrubber


@pytest.mark.parametrize(
    ("text", "left"),
    [
        pytest.param("key sk-secret!", "key [redacted]!", id="a-secret"),
        pytest.param("sk-secretsk-secret", "[redacted][redacted]", id="twice"),
        pytest.param("SK-Secret", "[redacted]", id="whatever-its-case"),
        pytest.param("Bearer sk-secret-long", "Bearer [redacted]", id="the-longer-of-two"),
        pytest.param("at https://api.example.org:8443/v1", "at https://[redacted]/v1", id="a-host-with-its-port"),
        pytest.param("at api.example.org.", "at [redacted].", id="a-host"),
        pytest.param("at apixexample.org", "at apixexample.org", id="a-dot-is-a-dot"),
        pytest.param("a+b(c)*d[e]", "[redacted]", id="no-character-means-more-than-itself"),
        pytest.param("nothing to hide", "nothing to hide", id="nothing"),
        pytest.param("", "", id="empty"),
        pytest.param("test", "test", id="short-secrets-are-words"),
    ],
)
def test_secrets_and_hosts(text, left):
    secrets = ["sk-secret", "sk-secret-long", "", "test", "a+b(c)*d[e]"]
    assert scrubber(secrets, ["api.example.org:8443", "api.example.org"])(text) == left


def test_nothing_to_hide_changes_nothing():
    assert scrubber(["", "short"], [])("short text") == "short text"


def test_what_is_put_in_its_place_is_not_searched_again():
    assert scrubber(["redacted", "secrets"], [])("redacted secrets") == "[redacted] [redacted]"
