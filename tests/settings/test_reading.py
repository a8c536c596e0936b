"""Each way to write a configuration wrong has its sentence."""

from __future__ import annotations

import pytest

from proxy.settings import Settings, SettingsError, load, loading
from proxy.settings.keys import KeyTable
from proxy.settings.models import ModelTable
from proxy.settings.providers import ProviderTable
from tests.settings.tables import DEMO, KEY, PROVIDER


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        # names
        pytest.param("[severs]", 'unknown setting "severs"; did you mean "server"?', id="unknown-table"),
        pytest.param("port = 1", 'unknown setting "port"', id="setting-outside-of-its-table"),
        pytest.param("[zzz]", 'unknown setting "zzz"', id="nothing-is-like-it"),
        pytest.param(
            "[timeouts]\nidel = 1", 'timeouts: unknown setting "idel"; did you mean "idle"?', id="unknown-setting"
        ),
        pytest.param("[log]\nLevel = 'info'", 'log: unknown setting "Level"; did you mean "level"?', id="case-matters"),
        pytest.param(
            KEY + "expire = 2027-01-01",
            'keys[0] "laptop": unknown setting "expire"; did you mean "expires"?',
            id="unknown-in-a-key",
        ),
        pytest.param(
            PROVIDER + 'apikey = "x"',
            'providers[0] "there": unknown setting "apikey"; did you mean "api_key"?',
            id="unknown-in-a-provider",
        ),
        pytest.param(
            PROVIDER + "timeouts = { totla = 1 }",
            'providers[0] "there": timeouts: unknown setting "totla"; did you mean "total"?',
            id="unknown-in-a-providers-timeouts",
        ),
        pytest.param(
            PROVIDER + "timeouts = { client = 1 }",
            'providers[0] "there": timeouts: client: is about the client\'s connection; it stands in [timeouts] only',
            id="a-clock-that-no-provider-has",
        ),
        pytest.param(
            DEMO + '[[models]]\nid = "m"\nprovider = "demo"\nalias = ["x"]',
            'models[0] "m": unknown setting "alias"; did you mean "aliases"?',
            id="unknown-in-a-model",
        ),
        pytest.param(
            DEMO + '[[models]]\nid = "m"\nprovider = "demo"\ntimeouts = { idel = 1 }',
            'models[0] "m": timeouts: unknown setting "idel"; did you mean "idle"?',
            id="unknown-in-a-models-timeouts",
        ),
        pytest.param(
            DEMO + '[[models]]\nid = "m"\ndeployments = [ { provider = "demo", wieght = 2 } ]',
            'models[0] "m": deployments[0]: unknown setting "wieght"; did you mean "weight"?',
            id="unknown-in-a-deployment",
        ),
        pytest.param(
            DEMO + '[[models]]\nid = "m"\nprovider = "demo"\nprice = { input = 1, output = 1, cache = 1 }',
            'models[0] "m": price: unknown setting "cache"; did you mean "cached"?',
            id="unknown-in-a-price",
        ),
        # types
        pytest.param("server = 1", "server: expected a table, found a whole number", id="a-number-for-a-table"),
        pytest.param("[[server]]", "server: expected a table, found a list", id="a-list-for-a-table"),
        pytest.param("[keys]", "keys: expected tables that begin with [[keys]], found a table", id="one-bracket"),
        pytest.param(
            "models = [1]",
            "models: expected tables that begin with [[models]], found a whole number",
            id="list-of-numbers",
        ),
        pytest.param(
            '[server]\nport = "80"', "server: port: expected a whole number, found a string", id="quoted-number"
        ),
        pytest.param(
            "[server]\nport = true",
            "server: port: expected a whole number, found true or false",
            id="a-bool-is-no-number",
        ),
        pytest.param(
            "[server]\nport = 80.5", "server: port: expected a whole number, found a number", id="half-a-port"
        ),
        pytest.param(
            '[timeouts]\nidle = "5s"', "timeouts: idle: expected a number, found a string", id="a-unit-on-a-duration"
        ),
        pytest.param(
            "[server]\nstrict = 1", "server: strict: expected true or false, found a whole number", id="one-is-not-true"
        ),
        pytest.param('[cors]\norigins = "*"', "cors: origins: expected a list, found a string", id="bare-string"),
        pytest.param(
            "[cors]\norigins = [1]", "cors: origins[0]: expected a string, found a whole number", id="inside-a-list"
        ),
        pytest.param(
            PROVIDER + "api_key = 1",
            'providers[0] "there": api_key: expected a string, found a whole number',
            id="no-key",
        ),
        pytest.param('[[providers]]\nname = "x"', 'providers[0] "x": kind: is missing', id="no-kind"),
        pytest.param('[[providers]]\nkind = "demo"', "providers[0]: name: is missing", id="no-name"),
        pytest.param(
            DEMO + '[[models]]\nid = "m"\ndeployments = [ { weight = 2 } ]',
            'models[0] "m": deployments[0]: provider: is missing',
            id="a-deployment-nowhere",
        ),
        # ranges
        pytest.param("[server]\nport = 65536", "server: port: must be at most 65535", id="port-too-high"),
        pytest.param("[server]\nport = -1", "server: port: must be at least 0", id="port-below-0"),
        pytest.param("[server]\nworkers = 0", "server: workers: must be at least 1", id="no-workers"),
        pytest.param("[limits]\nmax_body_bytes = 0", "limits: max_body_bytes: must be at least 1", id="no-body"),
        pytest.param("[limits]\nstreams = -1", "limits: streams: must be at least 0", id="less-than-no-limit"),
        pytest.param("[timeouts]\nidle = 0", "timeouts: idle: must be more than 0", id="0-means-nothing-here"),
        pytest.param("[timeouts]\nstream_total = -1", "timeouts: stream_total: must be at least 0", id="before-now"),
        pytest.param("[timeouts]\nidle = inf", "timeouts: idle: must be finite, found inf", id="infinite"),
        pytest.param("[cache]\nttl = nan", "cache: ttl: must be at least 0", id="not-a-number"),
        pytest.param(
            PROVIDER + "timeouts = { total = inf }",
            'providers[0] "there": timeouts: total: must be finite, found inf',
            id="infinite-at-a-provider",
        ),
        pytest.param(
            DEMO + '[[models]]\nid = "m"\nprovider = "demo"\nprice = { input = inf, output = 1 }',
            'models[0] "m": price: input: must be finite, found inf',
            id="infinite-price",
        ),
        pytest.param("[routing]\ntrip = 0", "routing: trip: must be at least 1", id="trips-at-nothing"),
        # words
        pytest.param(
            '[log]\nformat = "jsn"', 'log: format: "jsn" is none of json, text; did you mean "json"?', id="log-format"
        ),
        pytest.param(
            '[stream]\nkeepalive_mode = "ping"',
            'stream: keepalive_mode: "ping" is none of comment, chunk, off',
            id="keepalive-mode",
        ),
        pytest.param(
            '[stream]\non_disconnect = "cancle"',
            'stream: on_disconnect: "cancle" is none of cancel, drain; did you mean "cancel"?',
            id="on-disconnect",
        ),
        pytest.param(
            '[[providers]]\nname = "x"\nkind = "deepsek"',
            'providers[0] "x": kind: "deepsek" is none of openai, deepseek, workers-ai, anthropic, gemini, ollama, demo'
            '; did you mean "deepseek"?',
            id="kind",
        ),
        # syntax
        pytest.param("[server]\nport =", "end of document: Invalid value", id="torn-file"),
        pytest.param("[server]\n= 1", "line 2, column 1: Invalid statement", id="syntax"),
        pytest.param("[server]\nport = 1\nport = 2\n", "line 3, column 9: Cannot overwrite a value", id="said-twice"),
        pytest.param("a = " + "[" * 5000, "nested too deeply", id="nested"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file_and_the_place(complaint, toml, sentence):
    assert complaint(toml) == f"config.toml: {sentence}"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "none.toml", {})
    assert str(caught.value) == f"{tmp_path}/none.toml: no such file; name another one with --config FILE"


def test_a_directory_is_not_a_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_the_line_of_a_foreign_encoding_is_told(place):
    place.write_bytes('[server]\nname = "M\xfcller"\n'.encode("latin-1"))
    with pytest.raises(SettingsError, match="line 2: not UTF-8"):
        load(place, {})


def test_a_line_break_in_a_name_does_not_break_the_line(complaint):
    assert complaint('[[providers]]\nname = "a\\nb"\nkind = "x"').startswith(
        'config.toml: providers[0] "a\ufffdb": kind'
    )


def test_a_file_from_an_editor_that_writes_a_byte_order_mark_is_read(place):
    place.write_bytes(b"\xef\xbb\xbf[server]\nport = 81\n")
    assert load(place, {}).settings.server.port == 81


# Whatever stands there...

ODD = [
    '""',
    '"x"',
    '"\\u0000\\n"',
    '"env:"',
    '"file:."',
    '"file:/dev/zero"',
    '"credential:a/b"',
    '"http://[::1"',
    '"http://x:y"',
    "0",
    "-1",
    f"1{'0' * 400}",
    "1.5",
    "nan",
    "-inf",
    "true",
    "1979-05-27",
    "1979-05-27T07:32:00.999999-07:00",
    "07:32:00",
    "[]",
    "[[]]",
    '["", "*", "a*b", "a/../b"]',
    "[1, {}]",
    "{}",
    '{ a = "x" }',
    "{ a = { b = [1] } }",
    '[ { provider = "there" }, { provider = 1 } ]',
]
SECTIONS = [
    (f"[{name}]\n", field)
    for name, kind in loading.SECTIONS.items()
    for field in (*kind.__struct_fields__, "none-of-these", '""')
]
TABLES = [
    (beginning, field)
    for beginning, kind in (
        (PROVIDER, ProviderTable),
        (KEY, KeyTable),
        (PROVIDER + '[[models]]\nid = "m"\n', ModelTable),
        (PROVIDER + '[[models]]\nid = "m"\nprovider = "there"\n', ModelTable),
        ("", Settings),
    )
    for field in kind.__struct_fields__
]


@pytest.mark.parametrize(("beginning", "field"), SECTIONS + TABLES)
def test_whatever_stands_there_is_understood_or_refused_in_one_line(place, beginning, field):
    for value in ODD:
        place.write_text(f"{beginning}{field} = {value}\n", encoding="utf-8")
        try:
            load(place, {})
        except SettingsError as exc:
            line = str(exc)
            assert line.startswith(f"{place}: ")
            assert line.isprintable()
            assert "`" not in line  # msgspec's words
            assert "  " not in line
