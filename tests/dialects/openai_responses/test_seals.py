"""Seals of other dialects in `encrypted_content`."""

from __future__ import annotations

import pytest

from proxy.dialects.openai_responses.seals import Seal, Sealed, sign, unsign, unwrap, wrap


@pytest.mark.parametrize(
    "seal",
    [
        Seal(Sealed.THOUGHT, "EqoBCkgI+/=="),
        Seal(Sealed.HIDDEN, "a:b c%20"),
        Seal(Sealed.CALL, "sig:nature", "functions.get_weather:0"),
        Seal(Sealed.CALL, "s", "call é%:"),
    ],
)
def test_a_seal_comes_back_as_it_was(seal):
    assert unwrap(wrap(seal)) == seal


def test_what_a_provider_of_this_dialect_encrypted_is_told_as_it_was():
    assert wrap(Seal(Sealed.THOUGHT, sign("gAAAAA"))) == "gAAAAA"
    assert unsign(sign("gAAAAA")) == "gAAAAA"


@pytest.mark.parametrize("content", ["gAAAAA", "", "proxy:", "proxy:other:x:y", "proxy"])
def test_what_is_not_ours_is_none(content):
    assert unwrap(content) is None


def test_another_dialects_signature_is_not_for_this_dialect():
    assert unsign("EqoBCkgI") == ""
