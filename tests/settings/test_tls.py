"""Files for TLS towards a provider: found beside the configuration, and tried before they are needed."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from proxy.origin import TLS
from proxy.settings.tls import MAX_FILE
from tests.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

START = '[[providers]]\nname = "p"\nkind = "openai"\nbase_url = "https://127.0.0.1"\n'


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority's files, a client's, and some that are no use."""
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory)
    pair, other = authority.issue("client"), authority.issue("other")
    (directory / "both.pem").write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    (directory / "mixed.pem").write_bytes(other.key.read_bytes() + pair.certificate.read_bytes())
    locked = ["openssl", "ec", "-in", pair.key, "-aes256", "-passout", "pass:1234", "-out", directory / "locked.key"]
    subprocess.run(locked, check=True, capture_output=True)
    (directory / "empty.pem").touch()
    (directory / "text.pem").write_text("not PEM\n")
    torn = pair.certificate.read_text()
    (directory / "torn.pem").write_text(torn[:100] + torn[-26:])
    return directory


@pytest.fixture
def beside(files: Path, tmp_path: Path) -> Path:
    """The configuration's own directory, where the files are too."""
    for file in files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_paths_begin_at_the_configuration(settings, beside):
    (beside / "sub").mkdir()
    (beside / "client.key").rename(beside / "sub" / "client.key")
    told = f'tls = {{ ca = "{beside}/ca.pem", certificate = "client.pem", key = "sub/client.key" }}'
    found = settings(START + told).providers[0].tls
    assert found[:3] == (f"{beside}/ca.pem", f"{beside}/client.pem", f"{beside}/sub/client.key")
    assert found.context().get_ca_certs()


@pytest.mark.parametrize(
    "told",
    ['{ ca = "ca.pem" }', '{ certificate = "both.pem" }', '{ ca = "both.pem", certificate = "both.pem" }'],
    ids=["ca-alone", "key-inside", "one-file-for-all"],
)
def test_not_all_of_it_has_to_be_there(settings, beside, told):
    assert settings(f"{START}tls = {told}").providers[0].tls.context()


@pytest.mark.parametrize("told", ["", "tls = {}", 'tls = { ca = "" }'])
def test_without_files_everything_is_as_the_system_has_it(settings, told):
    assert settings(START + told).providers[0].tls == TLS()


def test_the_seal_stands_for_what_is_in_the_files(settings, beside):
    text = START + 'tls = { ca = "ca.pem", certificate = "client.pem", key = "client.key" }'
    first = settings(text).providers[0].tls
    assert settings(text).providers[0].tls == first
    for name in ("client.pem", "client.key"):
        (beside / name).write_bytes((beside / name.replace("client", "other")).read_bytes())
    second = settings(text).providers[0].tls
    assert second[:3] == first[:3]
    assert second != first


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        pytest.param('{ cert = "ca.pem" }', 'unknown setting "cert"', id="far-from-any"),
        pytest.param(
            '{ certficate = "ca.pem" }', 'unknown setting "certficate"; did you mean "certificate"?', id="misspelt"
        ),
        pytest.param('"ca.pem"', "expected a table, found a string", id="no-table"),
        pytest.param("{ ca = true }", "ca: expected a string, found true or false", id="no-string"),
        pytest.param('{ ca = "env:CA" }', "ca: references are understood in secrets only, not here", id="reference"),
        pytest.param(
            '{ ca = "nope.pem" }', 'ca: the file "nope.pem" cannot be read (No such file or directory)', id="no-file"
        ),
        pytest.param('{ ca = "." }', 'ca: the file "." cannot be read (Is a directory)', id="directory"),
        pytest.param('{ ca = "a\\u0000" }', 'ca: the file "a\N{REPLACEMENT CHARACTER}" cannot be read', id="nul"),
        pytest.param(
            '{ ca = "empty.pem" }', 'ca: the file "empty.pem" has no certificate in PEM form', id="empty-file"
        ),
        pytest.param('{ ca = "torn.pem" }', 'ca: the file "torn.pem" has no certificate in PEM form', id="torn"),
        pytest.param(
            '{ ca = "client.key" }', 'ca: the file "client.key" has no certificate in PEM form', id="key-for-a-ca"
        ),
        pytest.param(
            '{ certificate = "text.pem", key = "client.key" }',
            'certificate: the file "text.pem" has no certificate in PEM form',
            id="certificate-is-none",
        ),
        pytest.param(
            '{ certificate = "client.pem" }',
            'certificate: the file "client.pem" has no private key in PEM form; name the key\'s file with key = "FILE"',
            id="no-key-anywhere",
        ),
        pytest.param('{ key = "client.key" }', "key: is of no use without its certificate", id="key-alone"),
        pytest.param(
            '{ certificate = "client.pem", key = "gone.key" }',
            'key: the file "gone.key" cannot be read (No such file or directory)',
            id="key-is-gone",
        ),
        pytest.param(
            '{ certificate = "client.pem", key = "text.pem" }',
            'key: the file "text.pem" has no private key in PEM form',
            id="key-is-none",
        ),
        pytest.param(
            '{ certificate = "client.pem", key = "other.key" }',
            'key: the file "other.key" has the key of another certificate',
            id="another-s-key",
        ),
        pytest.param(
            '{ certificate = "mixed.pem" }',
            'certificate: the file "mixed.pem" has the key of another certificate',
            id="another-s-key-inside",
        ),
        pytest.param(
            '{ certificate = "client.pem", key = "locked.key" }',
            'key: the file "locked.key" cannot be used: the key is encrypted',
            id="pass-phrase",
        ),
    ],
)
def test_what_no_connection_could_use_is_told(complaint, beside, told, sentence):
    assert complaint(f"{START}tls = {told}") == f'config.toml: providers[0] "p": tls: {sentence}'


@pytest.mark.parametrize(
    "provider",
    ['kind = "openai"\nbase_url = "http://127.0.0.1"', 'kind = "ollama"', 'kind = "demo"'],
    ids=["http", "http-by-default", "no-address"],
)
def test_files_are_for_https(complaint, beside, provider):
    text = f'[[providers]]\nname = "p"\n{provider}\ntls = {{ ca = "ca.pem" }}'
    assert complaint(text) == 'config.toml: providers[0] "p": tls: is for a base_url that begins with https://'


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(complaint, beside):
    (beside / "ca.pem").chmod(0)
    told = complaint(START + 'tls = { ca = "ca.pem" }')
    assert told.endswith('tls: ca: the file "ca.pem" cannot be read (Permission denied)')


def test_a_file_without_an_end_is_not_read_to_it(complaint, beside):
    (beside / "ca.pem").write_bytes(b"x" * (MAX_FILE + 1))
    assert complaint(START + 'tls = { ca = "ca.pem" }').endswith(
        f'ca: the file "ca.pem" is larger than {MAX_FILE} bytes'
    )


def test_a_provider_that_is_off_must_have_good_files_too(complaint, beside):
    text = START + 'api_key = "env:NONE"\ntls = { ca = "nope.pem" }'
    assert complaint(text).startswith('config.toml: providers[0] "p": tls: ca: ')


def test_paths_and_seals_do_not_show(loaded, beside):
    shown = repr(loaded(START + 'tls = { ca = "ca.pem" }'))
    assert "ca.pem" not in shown
