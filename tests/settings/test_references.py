"""Secrets stay secret, and what only looks like one is refused."""

from __future__ import annotations

import pytest

from proxy.settings import Secret
from tests.settings.tables import PROVIDER, SECRET


@pytest.mark.parametrize(
    "word", ["changeme", "CHANGE-ME", "your-key", "YOUR_PROXY_KEY", "<key>", "xxx", "sk-xxxxxxxx", "sk-..."]
)
@pytest.mark.parametrize("setting", ["key", "api_key"])
def test_a_placeholder_is_not_a_secret_and_is_not_repeated(complaint, setting, word):
    table = f'[[keys]]\nname = "n"\nkey = "{word}"' if setting == "key" else f'{PROVIDER}api_key = "{word}"'
    assert complaint(table).endswith(f": {setting}: is a placeholder, not a secret")


@pytest.mark.parametrize(
    "word", ["sk-proj-Ab12xxx9", "sk-proxy-xxxQ7", "key-of-xavier", "test", "your", "not-needed", "sk-1"]
)
def test_a_key_that_only_looks_like_a_placeholder_is_a_key(settings, word):
    assert settings(f'[[keys]]\nname = "n"\nkey = "{word}"').keys


def test_a_secret_is_shown_on_request_only():
    secret = Secret(SECRET)
    assert secret.reveal() == SECRET
    assert SECRET not in f"{secret} {secret!r} {[secret]}"
    assert secret == Secret(SECRET) != Secret("")
    assert not Secret("")
