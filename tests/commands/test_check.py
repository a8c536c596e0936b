"""`check` says what would be served, and never a secret."""

from __future__ import annotations

import hashlib
import re

import pytest

from proxy.cli import main
from tests.certificates import Authority
from tests.test_config_toml import SHIPPED

SECRET = "Zq81-very-secret-7f"
CONFIG = f"""
[server]
host = "0.0.0.0"
port = 9000
[limits]
max_body_bytes = 1_500_000
max_streams = 40
[defaults]
chat = "openai/gpt-4o"
code = "coder"
[[keys]]
name = "laptop"
key = "{SECRET}"
models = ["deep*", "gpt-*"]
requests_per_minute = 60
expires = 2099-01-01
[[keys]]
name = "old"
sha256 = "{hashlib.sha256(b"old").hexdigest()}"
expires = 2001-01-01
admin = true
[[providers]]
name = "workers"
kind = "workers-ai"
api_key = "{SECRET}-2"
account_id = "0123456789abcdef"
headers = {{ X-Team = "{SECRET}-3" }}
[[providers]]
name = "there"
kind = "openai"
api_key = "env:NOT_SET_ANYWHERE"
[[models]]
id = "coder"
aliases = ["gpt-4"]
deployments = [ {{ provider = "workers", upstream = "@cf/qwen/coder", weight = 2 }}, {{ provider = "there" }} ]
[[models]]
id = "openai/*"
provider = "there"
fallbacks = ["coder"]
"""


@pytest.fixture
def check(tmp_path, capsys):
    def run(text: str, *flags: str) -> tuple[int, str, str]:
        path = tmp_path / "config.toml"
        path.write_text(text)
        code = main(["check", "--config", str(path), *flags])
        captured = capsys.readouterr()
        squeezed = re.sub(r" {2,}", "  ", captured.out.replace(f"{tmp_path}/", ""))
        return code, squeezed, captured.err.replace(f"{tmp_path}/", "")

    return run


def test_what_would_be_served_is_told(check):
    code, out, err = check(CONFIG)
    assert code == 0
    assert out.splitlines() == [
        "config.toml is fine",
        "listens on  http://0.0.0.0:9000",
        "access  with one of 2 keys",
        "web pages  of everybody",
        "bodies  up to 1500000 bytes",
        "exchanges  40 at once",
        "POST /api/chat  coder, because openai/gpt-4o is off",
        "POST /v1/...  coder",
        "POST /chat  coder",
        "",
        "Providers",
        "NAME  KIND  STATE  ADDRESS",
        "workers  workers-ai  on  https://api.cloudflare.com/client/v4/accounts/***/ai",
        "there  openai  off  api_key: the environment variable NOT_SET_ANYWHERE is not set",
        "",
        "Models",
        "MODEL  STATE  ALIASES  DEPLOYMENTS  FALLBACKS",
        "coder  on  gpt-4  workers: @cf/qwen/coder (weight 2), there: coder",
        "openai/*  off  there: *  coder",
        "",
        "Keys",
        "KEY  MODELS  REQUESTS/MIN  TOKENS/MIN  STREAMS  EXPIRES  ADMIN",
        "laptop  deep*, gpt-*  60  any  any  2099-01-01 00:00 UTC",
        "old  *  any  any  any  expired  yes",
        "",
    ]
    assert err == (
        'config.toml: providers[1] "there": api_key: the environment variable NOT_SET_ANYWHERE is not set; '
        "this provider is switched off\n"
    )
    assert SECRET not in out


@pytest.mark.parametrize(
    ("text", "row"),
    [
        pytest.param("", "access  open to this machine: there are no keys", id="open"),
        pytest.param("", "web pages  of this machine, and editors", id="open-to-pages-here"),
        pytest.param("", "POST /chat  nobody", id="no-models"),
        pytest.param("[cors]\norigins = []", "web pages  of nobody", id="no-pages"),
        pytest.param('[cors]\norigins = ["https://a.org"]', "web pages  of https://a.org", id="one-page"),
        pytest.param("[auth]\nanonymous = true", "access  open to everybody (auth.anonymous)", id="anonymous"),
        pytest.param(
            '[auth]\nanonymous = true\n[[keys]]\nname = "a"\nkey = "a-key"',
            "access  with the key, or none at all (auth.anonymous)",
            id="anonymous-beside-a-key",
        ),
        pytest.param('[server]\nhost = "::1"', "listens on  http://[::1]:8080", id="version-6"),
        pytest.param(
            '[server]\nworkers = 2\n[state]\nurl = "redis://x"',
            "listens on  http://127.0.0.1:8080, 2 workers",
            id="workers",
        ),
        pytest.param("[limits]\nmax_body_bytes = 2048", "bodies  up to 2 KiB", id="sizes-in-units"),
    ],
)
def test_the_overview_is_in_the_operators_words(check, text, row):
    code, out, _ = check(text)
    assert code == 0
    assert row in out.splitlines()


def test_the_shipped_file_is_fine(capsys, monkeypatch):
    monkeypatch.chdir(SHIPPED.parent)
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith("config.toml is fine\n")


def test_a_mistake_is_one_line_and_exit_code_2(check):
    code, out, err = check("[timeouts]\nidel = 1")
    assert (code, out) == (2, "")
    assert err == 'config.toml: timeouts: unknown setting "idel"; did you mean "idle"?\n'


def test_a_file_that_is_not_there_is_one_line_and_exit_code_2(capsys):
    assert main(["check", "--config", "nowhere.toml"]) == 2
    assert capsys.readouterr().err == "nowhere.toml: no such file; name another one with --config FILE\n"


def test_live_says_what_works_and_exits_0(check):
    code, out, _ = check(
        '[[providers]]\nname = "demo"\nkind = "demo"\n[[models]]\nid = "demo"\nprovider = "demo"', "--live"
    )
    assert code == 0
    assert out.splitlines()[-4:-2] == ["Live", "PROVIDER  STATE  LATENCY  ANSWER"]
    assert out.splitlines()[-2].startswith("demo  ok")


def test_live_says_what_does_not_work_and_exits_1(check, unused_tcp_port):
    address = f"127.0.0.1:{unused_tcp_port}"
    code, out, _ = check(f'[[providers]]\nname = "p"\nkind = "openai"\nbase_url = "http://{address}"', "--live")
    assert code == 1
    assert re.search(rf"^p  failed  \d+ ms  cannot reach {address}: connection refused$", out, re.MULTILINE)


def test_files_of_tls_are_told_by_what_they_are_for(check, tmp_path):
    authority = Authority(tmp_path)
    pair = authority.issue("client")
    pair.certificate.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    start = '[[providers]]\nkind = "openai"\nbase_url = "https://x.example"\n'
    code, out, _ = check(
        f'{start}name = "a"\ntls = {{ ca = "ca.pem" }}\n{start}name = "b"\ntls = {{ certificate = "client.pem" }}\n'
        f'{start}name = "c"\ntls = {{ ca = "ca.pem", certificate = "client.pem" }}\n{start}name = "d"\n'
    )
    assert code == 0
    told = re.findall(r"https://x\.example(.*)", out)
    assert told == [" (own CA)", " (own certificate)", " (own CA and certificate)", ""]
