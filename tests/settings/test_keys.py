"""Who may ask: keys are kept as digests, and a lost one stops the start."""

from __future__ import annotations

import datetime
import hashlib

import pytest

from tests.settings.tables import DIGEST, KEY, SECRET


@pytest.mark.parametrize(
    ("key", "environ"),
    [
        pytest.param(f'key = "{SECRET}"', {}, id="literal"),
        pytest.param('key = "env:PROXY_KEY"', {"PROXY_KEY": f"{SECRET}\n"}, id="variable"),
        pytest.param('key = "file:key.txt"', {}, id="file-beside-the-configuration"),
        pytest.param(
            'key = "credential:proxy"', {"CREDENTIALS_DIRECTORY": "HERE/credentials"}, id="systemd-credential"
        ),
        pytest.param(f'sha256 = "{DIGEST}"', {}, id="digest"),
        pytest.param(f'sha256 = "{DIGEST.upper()}"', {}, id="digest-in-capitals"),
        pytest.param('sha256 = "env:DIGEST"', {"DIGEST": DIGEST}, id="digest-by-reference"),
    ],
)
def test_a_key_is_kept_as_its_digest_only(loaded, tmp_path, key, environ):
    (tmp_path / "key.txt").write_text(f"{SECRET}\n")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "proxy").write_text(SECRET)
    environ = {name: value.replace("HERE", str(tmp_path)) for name, value in environ.items()}
    found = loaded(f'[[keys]]\nname = "laptop"\n{key}', environ)
    assert found.settings.keys[0].digest == hashlib.sha256(SECRET.encode()).digest()
    assert not found.settings.open
    for shown in (repr(found), str(found.settings), repr(found.settings.keys[0])):
        assert SECRET not in shown
        assert DIGEST not in shown


def test_limits_that_a_key_leaves_out_are_the_common_ones_and_0_takes_them_away(settings):
    common = "[limits]\nrequests_per_minute = 60\ntokens_per_minute = 1000\nstreams = 4\n"
    plain, own = settings(common + KEY + '[[keys]]\nname = "b"\nkey = "b-key"\nstreams = 0\ntokens_per_minute = 5').keys
    assert (plain.requests_per_minute, plain.tokens_per_minute, plain.streams) == (60, 1000, 4)
    assert (own.requests_per_minute, own.tokens_per_minute, own.streams) == (60, 5, 0)


UTC = datetime.UTC


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        pytest.param("2027-01-01", datetime.datetime(2027, 1, 1, tzinfo=UTC), id="a-date-ends-as-it-begins"),
        pytest.param("2027-01-01T12:30:00", datetime.datetime(2027, 1, 1, 12, 30, tzinfo=UTC), id="no-zone-is-utc"),
        pytest.param("2027-01-01T12:30:00Z", datetime.datetime(2027, 1, 1, 12, 30, tzinfo=UTC), id="utc"),
        pytest.param("2027-01-01T12:30:00+02:00", datetime.datetime(2027, 1, 1, 10, 30, tzinfo=UTC), id="other-zone"),
    ],
)
def test_a_key_expires_at_a_moment_in_utc(settings, written, moment):
    expires = settings(KEY + f"expires = {written}").keys[0].expires
    assert expires == moment
    assert expires.tzinfo is UTC


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        pytest.param("", 'key: is missing (or sha256); "ai-proxy key new NAME" makes one', id="no-key"),
        pytest.param(
            f'key = "x"\nsha256 = "{DIGEST}"', "has both key and sha256; one of them decides", id="key-and-digest"
        ),
        pytest.param('key = ""', "key: is empty", id="empty"),
        pytest.param('key = "env:NONE"', "key: the environment variable NONE is not set", id="lost-key"),
        pytest.param('key = "env:EMPTY"', "key: the environment variable EMPTY is empty", id="empty-variable"),
        pytest.param(
            'key = "env:LAZY"', "key: the environment variable LAZY is a placeholder, not a secret", id="lazy-variable"
        ),
        pytest.param('key = "env:"', 'key: "env:" names nothing', id="reference-to-nothing"),
        pytest.param(
            'key = "file:none.txt"', 'key: the file "none.txt" cannot be read (No such file or directory)', id="no-file"
        ),
        pytest.param('key = "file:empty.txt"', 'key: the file "empty.txt" is empty', id="empty-file"),
        pytest.param(
            'key = "credential:x"',
            'key: the credential "x" is not there: systemd did not set CREDENTIALS_DIRECTORY',
            id="no-systemd",
        ),
        pytest.param(
            'key = "credential:../x"', 'key: "../x" is not the name of a credential', id="out-of-the-directory"
        ),
        pytest.param('key = "two words"', "key: has characters other than visible ASCII", id="space"),
        pytest.param('key = "schlüssel"', "key: has characters other than visible ASCII", id="not-ascii"),
        pytest.param('sha256 = "abc"', "sha256: must be 64 hexadecimal digits", id="short-digest"),
        pytest.param(
            f'sha256 = "{hashlib.sha256(b"").hexdigest()}"',
            "sha256: is the digest of an empty key",
            id="digest-of-nothing",
        ),
        pytest.param(
            'key = "k"\nexpires = "2027-01-01"',
            "expires: expected a date, found a string: write the date without quotation marks",
            id="quoted-date",
        ),
        pytest.param(
            'key = "k"\nexpires = 12:00:00', "expires: expected a date, found a time of day", id="time-of-day"
        ),
        pytest.param(
            'key = "k"\nexpires = 0001-01-01T00:00:00+01:00', "expires: is outside the calendar", id="before-year-1"
        ),
        pytest.param('key = "k"\nstreams = -1', "streams: must be at least 0", id="negative-limit"),
        pytest.param('key = "k"\nmodels = [""]', "models: a pattern is empty", id="empty-pattern"),
    ],
)
def test_a_key_that_cannot_be_meant_does_not_start_the_gateway(complaint, tmp_path, key, sentence):
    (tmp_path / "empty.txt").write_text("\n")
    environ = {"EMPTY": "", "LAZY": "changeme"}
    assert complaint(f'[[keys]]\nname = "laptop"\n{key}', environ) == f'config.toml: keys[0] "laptop": {sentence}'


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        pytest.param(
            'name = "laptop"\nkey = "other"', '"laptop": name: there is a key of this name already', id="name"
        ),
        pytest.param('name = "b"\nkey = "a-fine-key"', '"b": is the same key as "laptop"', id="key"),
    ],
)
def test_no_two_keys_are_the_same(complaint, second, sentence):
    assert complaint(f"{KEY}[[keys]]\n{second}") == f"config.toml: keys[1] {sentence}"
