"""Defaults of the contract, and settings beside each other."""

from __future__ import annotations

import msgspec
import pytest

from proxy.settings import Overrides, Settings
from proxy.settings.loading import LOCAL_ORIGINS
from tests.settings.tables import KEY

DEFAULTS = {
    "server": {
        "host": "127.0.0.1",
        "port": 8080,
        "workers": 1,
        "drain": 300.0,
        "name": "AI Proxy",
        "strict": False,
        "public_url": "",
    },
    "limits": {
        "max_body_bytes": 1_048_576,
        "max_frame_bytes": 16_777_216,
        "max_header_bytes": 32_768,
        "max_streams": 0,
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        "streams": 0,
    },
    "timeouts": {
        "connect": 5.0,
        "first_byte": 120.0,
        "idle": 120.0,
        "heartbeat": 600.0,
        "total": 600.0,
        "stream_total": 0.0,
        "after_finish": 2.0,
        "client": 30.0,
        "keepalive_idle": 75.0,
    },
    "stream": {"keepalive": 15.0, "keepalive_mode": "comment", "on_disconnect": "cancel"},
    "auth": {"anonymous": False},
    "cors": {"origins": ("*",)},
    "state": {"url": "memory:"},
    "cache": {"ttl": 0.0, "max_bytes": 67_108_864},
    "defaults": {"chat": "", "code": "", "proxy": ""},
    "routing": {
        "retries": 2,
        "backoff": 0.25,
        "cooldown": 30.0,
        "trip": 5,
        "window": 60.0,
        "hedge_after": 0.0,
    },
    "log": {"level": "info", "format": "json"},
}


def test_every_setting_of_the_contract_has_its_default_and_there_is_no_other(settings):
    found = settings(KEY)
    assert {name: msgspec.structs.asdict(getattr(found, name)) for name in DEFAULTS} == DEFAULTS
    assert set(Settings.__struct_fields__) == {*DEFAULTS, "keys", "providers", "models"}


def test_an_empty_file_is_a_gateway_that_says_it_has_nothing_to_serve(loaded, place):
    assert loaded("").settings.open
    assert loaded("").warnings == (f"{place}: models: there are none, so nothing can be asked",)


def test_settings_cannot_change_under_a_running_request(settings):
    with pytest.raises(AttributeError):
        settings("").server.port = 1


# Settings beside each other...


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_an_open_gateway_listens_on_this_machine(settings, host):
    assert settings(f'[server]\nhost = "{host}"').open


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "gateway.example.org"])
def test_an_open_gateway_listens_nowhere_else(complaint, settings, host):
    text = f'[server]\nhost = "{host}"\n'
    assert complaint(text) == (
        "config.toml: server: host: "
        f"without [[keys]] the gateway is open, and listens on loopback only, not on {host}; "
        'make a key with "ai-proxy key new NAME" (or set auth.anonymous = true)'
    )
    assert settings(text + KEY).server.host == host
    assert settings(f"{text}[auth]\nanonymous = true").open


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        pytest.param(
            "[server]\nworkers = 2",
            'server: workers: 2 processes share their limits through [state] url = "redis://..."; memory: is for one',
            id="workers-without-state",
        ),
        pytest.param(
            '[state]\nurl = "postgres://x"',
            STATE := 'state: url: must be "memory:" or a URL that begins with redis://, rediss:// or unix://',
            id="state-elsewhere",
        ),
        pytest.param('[state]\nurl = "redis://"', STATE, id="state-nowhere"),
        pytest.param(
            '[state]\nurl = "env:NONE"', "state: url: the environment variable NONE is not set", id="state-lost"
        ),
        pytest.param(
            '[server]\nhost = "env:HOST"',
            "server: host: references are understood in secrets only, not here",
            id="reference-in-a-host",
        ),
        pytest.param(
            '[server]\nhost = ""',
            HOST := "server: host: must be a host name or an address without brackets (0.0.0.0 or :: is every one)",
            id="empty-host",
        ),
        pytest.param('[server]\nhost = "[::1]"', HOST, id="brackets"),
        pytest.param(
            '[server]\npublic_url = "ai.example.org"',
            "server: public_url: must begin with https:// or http://",
            id="public-url-without-scheme",
        ),
        pytest.param(
            '[server]\nname = ""', "server: name: must be printable, on one line, and not empty", id="nameless"
        ),
        pytest.param(
            '[cors]\norigins = ["https://x.org/app"]',
            'cors: origins: "https://x.org/app" is not an origin: '
            'scheme://host[:port], with * in host or port, or "*", or "null"',
            id="an-origin-has-no-path",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_told(complaint, toml, sentence):
    assert complaint(toml) == f"config.toml: {sentence}"


def test_workers_with_shared_state_are_fine(settings):
    found = settings('[server]\nworkers = 4\n[state]\nurl = "env:STATE"', {"STATE": "redis://127.0.0.1:6379/0"})
    assert (found.server.workers, found.state.url) == (4, "redis://127.0.0.1:6379/0")


@pytest.mark.parametrize(
    ("toml", "origins"),
    [
        pytest.param("", LOCAL_ORIGINS, id="open-gateway-is-for-this-machine"),
        pytest.param("[auth]\nanonymous = true", ("*",), id="a-gateway-for-all"),
        pytest.param(KEY, ("*",), id="a-gateway-with-keys"),
        pytest.param('[cors]\norigins = ["*"]', ("*",), id="wanted-on-an-open-one"),
        pytest.param(
            '[cors]\norigins = ["https://*.example.org", "http://localhost:*", "vscode-webview://*", "null"]',
            ("https://*.example.org", "http://localhost:*", "vscode-webview://*", "null"),
            id="patterns",
        ),
        pytest.param("[cors]\norigins = []", (), id="nobody"),
    ],
)
def test_pages_that_may_use_the_gateway(settings, toml, origins):
    assert settings(toml).cors.origins == origins


def test_flags_override_the_file(settings):
    text = '[server]\nhost = "127.0.0.1"\nport = 1\n'
    found = settings(text, overrides=Overrides(host="::1", port=0))
    assert (found.server.host, found.server.port, found.server.workers) == ("::1", 0, 1)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        pytest.param(Overrides(port=70000), "--port: must be at most 65535", id="port"),
        pytest.param(Overrides(workers=0), "--workers: must be at least 1", id="workers"),
        pytest.param(
            Overrides(host="0.0.0.0"),
            "server: host: without [[keys]] the gateway is open, and listens on loopback only, not on 0.0.0.0; "
            'make a key with "ai-proxy key new NAME" (or set auth.anonymous = true)',
            id="an-open-gateway-is-not-opened-to-the-world-by-a-flag",
        ),
    ],
)
def test_flags_are_held_to_the_same_rules(complaint, overrides, sentence):
    assert complaint("", overrides=overrides) == f"config.toml: {sentence}"
