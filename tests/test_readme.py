"""The README tells the truth: its examples are run, and its tables are compared with the code."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import json
import os
import re
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from proxy import __version__, handlers
from proxy.app import ROUTES
from proxy.bridges import Crossing
from proxy.cli import parser
from proxy.dialects.openai_chat.errors import TYPE
from proxy.errors import GatewayError, InvalidRequest, Kind
from proxy.observe.logs import AccessLog
from proxy.observe.metrics import Metrics
from proxy.observe.record import Record
from proxy.providers import conventions
from proxy.registry import client_side
from proxy.requests import Request, Role, Text, Turn
from proxy.routing.table import build
from proxy.serving import Server
from proxy.settings import Log, Settings, Timeouts, load
from proxy.settings.keys import KeyTable
from proxy.settings.models import ModelTable
from proxy.settings.providers import ProviderTable
from tests.certificates import Authority
from tests.functional.wire import listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHIPPED = ROOT / "config.toml"

#: Seconds that an example may take before it counts as hanging.
PATIENCE = 60.0
#: What the README writes before an example that cannot be run here, with the reason.
NOT_RUN = re.compile(r"<!-- not run: .+ -->\n\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``output`` is the text block that follows it directly, if any."""

    kind: str
    text: str
    line: int
    runs: bool
    output: str | None


def blocks(*kinds: str) -> list[Block]:
    fences = list(re.finditer(r"^```(\w+)\n(.*?)^```\n", README, re.MULTILINE | re.DOTALL))
    found = []
    for fence, following in zip(fences, [*fences[1:], None], strict=True):
        output = None
        if following and following[1] == "text" and not README[fence.end() : following.start()].strip():
            output = following[2]
        line = README.count("\n", 0, fence.start()) + 1
        found.append(Block(fence[1], fence[2], line, not NOT_RUN.search(README[: fence.start()]), output))
    return [block for block in found if block.kind in kinds]


def each(*kinds: str) -> pytest.MarkDecorator:
    params = [pytest.param(block, id=f"line-{block.line}") for block in blocks(*kinds)]
    assert params, f"the README has no {kinds} block"
    return pytest.mark.parametrize("block", params)


def rows(title: str) -> Iterator[list[str]]:
    """The cells of the first table whose head begins with ``title``, row by row, and what code they quote."""
    lines = README[README.index(f"\n| {title} |") + 1 :].splitlines()
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# The examples...


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Where a gateway listens that has the shipped configuration and no secret, as after ``make run``."""
    server = await Server.start(load(SHIPPED, {}).settings, sock=listener())
    try:
        yield f"localhost:{server.port}"
    finally:
        await server.stop()


async def output_of(*argv: str) -> str:
    environ = {**os.environ, "no_proxy": "localhost", "NO_PROXY": "localhost"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, env=environ, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, err.decode()
    return out.decode().replace("\r\n", "\n")


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="curl or bash is not installed")
@each("bash")
async def test_what_curl_is_shown_to_print_is_what_it_prints(address, block):
    if not block.runs:
        pytest.skip("needs what the README says before it")
    assert "localhost:8080" in block.text
    printed = await output_of("bash", "-euc", "AI_PROXY_KEY=any\n" + block.text.replace("localhost:8080", address))
    assert printed
    if block.output is not None:
        expected = ".+?".join(map(re.escape, block.output.strip().split("…")))
        assert re.fullmatch(expected, printed.strip(), re.DOTALL), printed


@each("python")
async def test_the_python_example_prints_the_answer(address, block):
    assert "localhost:8080" in block.text
    for source, name in re.findall(r"(?m)^from ([\w.]+) import (\w+)$", block.text):
        assert hasattr(pytest.importorskip(source), name) or pytest.importorskip(f"{source}.{name}")
    printed = await output_of(sys.executable, "-c", block.text.replace("localhost:8080", address))
    assert printed.startswith("This is the demo provider of AI Proxy")


def test_examples_are_left_out_only_where_a_key_is_needed():
    assert len([block for block in blocks("bash", "python") if not block.runs]) == README.count("<!-- not run: ") == 1


# Configuration...


def paste(block: str) -> str:
    """A configuration with this block and, where the block does not name its own, the shipped providers and models."""
    own = tomllib.loads(block)
    shipped = re.sub(r"(?m)^# (?=\[\[(?:providers|models)\]\]|[a-z_]+ = |  )", "", SHIPPED.read_text(encoding="utf-8"))
    tables = re.findall(r"(?ms)^(\[\[(providers|models)\]\]\n.*?)(?=^$|^#|\Z)", shipped)
    names = {name for model in own.get("models", []) for name in (model["id"], *model.get("aliases", ()))}
    names |= {provider["name"] for provider in own.get("providers", [])}
    for text, kind in tables:
        table = tomllib.loads(text)[kind][0]
        if "deployments" not in table and not names & {table.get("id"), table.get("name"), *table.get("aliases", ())}:
            block += f"\n{text}"
    return block


@each("toml")
def test_a_piece_of_configuration_loads_without_a_word(tmp_path, block):
    if "model_provider" in tomllib.loads(block.text):
        pytest.skip("is Codex' own")
    path, text = tmp_path / "config.toml", paste(block.text)
    path.write_text(text, encoding="utf-8")
    environ = dict.fromkeys(re.findall(r'"env:(\w+)"', text), "a1b2c3d4")
    environ["CREDENTIALS_DIRECTORY"] = str(tmp_path)
    for index, name in enumerate(re.findall(r'"(?:file|credential):([\w.]+)"', text)):
        (tmp_path / name).write_text(f"secret-{index}\n")
    if "\ntls = " in block.text:
        Authority(tmp_path).issue("client")  # ca.pem, client.pem, client.key
    loaded = load(path, environ)
    assert loaded.warnings == ()
    assert all(provider.enabled for provider in loaded.settings.providers)


def test_codex_is_told_the_dialect_that_it_speaks():
    [codex] = [told for block in blocks("toml") if "model_provider" in (told := tomllib.loads(block.text))]
    provider = codex["model_providers"][codex["model_provider"]]
    assert provider == {"name": "AI Proxy", "base_url": "http://localhost:8080/v1", "wire_api": "responses"}
    assert codex["model"] in {model.id for model in load(SHIPPED, {}).settings.models}


TABLES = {"keys": KeyTable, "providers": ProviderTable, "models": ModelTable}
SECTIONS = {name: type(getattr(Settings(), name)) for name in Settings.__struct_fields__ if name not in TABLES}


def test_settings_that_are_named_exist():
    named = re.findall(rf"\b({'|'.join(SECTIONS)})\.([a-z_]+)\b(?!\()", README)
    missing = {
        f"{section}.{name}"
        for section, name in named
        if name not in SECTIONS[section].__struct_fields__ and f"{section}.{name}" not in {"log.format", "config.toml"}
    }
    assert named
    assert not missing
    sections = re.findall(r"`\[+([a-z]+)\]+", README)
    assert set(sections) <= {*SECTIONS, *TABLES}


def test_the_clocks_are_all_there_with_their_defaults():
    told = {code(name)[0]: float(default) for name, default, _ in rows("clock")}
    assert told == msgspec.to_builtins(Timeouts())


def test_the_providers_are_the_shipped_ones_and_so_are_their_variables():
    told = {variable for row in rows("provider") for variable in code(row[1]) if variable.isupper()}
    assert told == set(re.findall(r'"env:(\w+)"', re.sub(r"(?m)^#.*", "", SHIPPED.read_text(encoding="utf-8"))))


def test_models_to_ask_for_are_in_the_shipped_file():
    settings = load(SHIPPED, {}).settings
    names = {name for model in settings.models for name in (model.id, *model.aliases)} | {"ollama/*"}
    for row in rows("provider"):
        for name in code(row[2]):
            assert name in names or f"{name.partition('/')[0]}/*" in names, name


def test_what_is_said_to_be_unused_is_unused():
    """Whoever makes one of these work takes it out of the README's list."""
    section = README[README.index("## Not used yet") : README.index("## License")]
    unused = ["hedge_after", "retries", "cooldown", "fallbacks", "price", "public_url"]
    assert all(f"`{name}`" in section or f".{name}`" in section for name in unused)
    sources = [
        path.read_text(encoding="utf-8")
        for path in (ROOT / "proxy").rglob("*.py")
        if path.relative_to(ROOT / "proxy").parts[0] not in {"settings", "commands"}
    ]
    used = {name for name in unused for text in sources if re.search(rf"\.{name}\b(?!\()", text)}
    assert not used


# Who speaks what...

PROVIDERS = [
    [conventions(kind) for kind in ("openai", "deepseek", "ollama", "workers-ai")],
    [conventions("anthropic")],
    [conventions("gemini")],
    [conventions("workers-ai", endpoint="native")],
    [conventions("openai", endpoint="responses")],
]
DIALECTS = {
    "chat completions": "openai_chat",
    "Responses": "openai_responses",
    "Messages": "anthropic_messages",
    "Gemini": "gemini",
    "`/api/chat`": "simple_chat",
}


def test_what_passes_as_written_is_what_the_provider_speaks():
    told = {row[0].partition(",")[0]: row[1:] for row in rows("a tool's request")}
    for name, dialect in DIALECTS.items():
        for cell, kinds in zip(told[name], PROVIDERS, strict=True):
            assert all(cell.startswith("as written") == (dialect in kind.speaks) for kind in kinds), (name, cell)
    assert "openai_responses" in conventions("openai", responses=True).speaks


def test_the_limit_that_is_sent_where_none_is_given_is_the_codes():
    [told] = [row[1:] for row in rows("in a request") if row[0].startswith("`max_tokens`")]
    assert told[1] == str(conventions("anthropic").quirks.default_max_tokens)
    assert told[3] == str(conventions("workers-ai", endpoint="native").quirks.default_max_tokens)


@pytest.mark.parametrize("model", ["deepseek-chat", "anthropic/any", "gemini/any"])
@pytest.mark.parametrize("wish", [{"answers": 2}, {"logprobs": 0}])
def test_what_is_said_to_be_refused_is_refused(model, wish):
    [told] = [row for row in rows("in a request") if "`n`" in row[0]]
    assert told[1:] == ["400"] * len(PROVIDERS)
    environ = dict.fromkeys(re.findall(r'"env:(\w+)"', SHIPPED.read_text(encoding="utf-8")), "a1b2c3d4")
    [target] = build(load(SHIPPED, environ).settings, None, "test").resolve(model, None).entry.targets
    asked = Request(model, (Turn(Role.USER, (Text("hello"),)),), **wish)
    with pytest.raises(InvalidRequest):
        Crossing(client_side("openai_responses"), asked, target, str, lambda error: b"")


# What the code offers...


def test_the_endpoints_are_all_there_and_no_others():
    told = {re.sub(r"\{model\}:\w+", "{call}", endpoint) for row in rows("request") for endpoint in code(row[0])}
    assert told == {f"{method} {re.sub(r':[^}]+', '', paths[0])}" for method, paths, _ in ROUTES}


def test_geminis_actions_are_all_there_and_no_others():
    told = {action for row in rows("request") for action in re.findall(r"\{model\}:(\w+)", row[0])}
    assert told == set(re.findall(r'case "(\w+)"', inspect.getsource(handlers.gemini)))


def test_keyless_endpoints_are_said_to_be_so():
    told = {code(row[0])[0].split()[1] for row in rows("request") if row[1].endswith("no key")}
    assert told == {paths[0] for _, paths, endpoint in ROUTES if endpoint.public}


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = parser()._actions
    return next(action.choices for action in actions if isinstance(action, argparse._SubParsersAction))


def test_the_commands_are_all_there_with_all_their_flags():
    known = {
        name: {flag for action in command._actions for flag in action.option_strings if flag.startswith("--")}
        for name, command in commands().items()
    }
    told = {(line := code(row[0])[0]).split()[0]: set(re.findall(r"--\w+", line)) for row in rows("command")}
    assert told == {name: flags - {"--help"} for name, flags in known.items()}
    for row in rows("command"):
        argv = code(row[0])[0].replace("[", "").replace("]", "").split()
        parser().parse_args(["1" if word in {"N", "PORT"} else word for word in argv])


def test_make_targets_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):.*## ", makefile))
    told = set(re.findall(r"(?m)(?:^|`|sudo )make ([a-z-]+)", README))
    assert told == targets - {"help"}
    for variable in ("PYTHON", "VENV", "CONFIG", "PREFIX", "UNITDIR", "CONFDIR", "DESTDIR"):
        assert variable in README
        assert re.search(rf"(?m)^{variable}\s*\?=", makefile)


def test_the_metrics_are_all_there_and_no_others():
    families = re.findall(r"(?m)^# TYPE (\w+)", Metrics().text().decode())
    assert {code(row[0])[0] for row in rows("metric")} == {name for name in families if not name.endswith("_created")}
    named = set(re.findall(r"\bai_proxy_\w+", README))
    assert named <= set(families)


async def test_the_log_line_has_the_fields_of_a_request():
    [block] = blocks("json")
    lines: list[bytes] = []
    log = AccessLog(Log(), lines.append)
    log.settle(Record("req_1", 0.0), "POST", "chat", 200, 0.0)
    log.flush()
    assert list(json.loads(block.text)) == list(json.loads(lines[0]))


def faults() -> Iterator[type[GatewayError]]:
    waiting = [GatewayError]
    while waiting:
        fault = waiting.pop()
        yield fault
        waiting += fault.__subclasses__()


def test_the_kinds_of_faults_are_all_there_with_their_words():
    told = {code(row[0])[0]: row for row in rows("kind")}
    assert set(told) == set(Kind)
    assert {kind: code(row[2])[0] for kind, row in told.items()} == {str(kind): word for kind, word in TYPE.items()}
    for fault in faults():
        assert str(fault.status) in told[fault.kind][1], fault


# The rest...


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_links_lead_somewhere(target):
    if target.startswith("#"):
        titles = re.findall(r"(?m)^#+ (.+)$", README)
        assert target[1:] in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    else:
        assert (ROOT / target).exists()


def test_the_latest_changes_are_this_versions():
    changes = (ROOT / "CHANGES.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (\S+)", changes)[0] == __version__
