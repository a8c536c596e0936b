"""Imports point one way: every module stands in the order of the house, and looks only downwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Top first.  A name stands for a module or for a package with all that is in it, unless a longer name says more;
#: inside a package modules know each other.  Names on one line do not know each other.
HOUSE = """
    proxy.__main__
    proxy.cli
    proxy.commands
    proxy.supervisor
    proxy.process
    proxy.worker                    proxy.serving
    proxy.launch
    proxy.app
    proxy.express
    proxy.handlers                  proxy.models
    proxy.attempt
    proxy.probes
    proxy.middleware
    proxy.answers
    proxy.context
    proxy.gateway
    proxy.asked                     proxy.relay
    proxy.bridges                   proxy.outlet
    proxy.registry                  proxy.demo      proxy.connection    proxy.faults
    proxy.observe                   proxy.upstream  proxy.wheel         proxy.state
    proxy.routing
    proxy.settings                  proxy.scrub     proxy.providers
    proxy.pipes
    proxy.dialects.anthropic_messages  proxy.dialects.gemini  proxy.dialects.openai_chat \
    proxy.dialects.openai_responses    proxy.dialects.simple_chat  proxy.dialects.workers_ai
    proxy.dialects
    proxy.refusals                  proxy.blocks
    proxy.sse                       proxy.requests  proxy.events    proxy.fields    proxy.template
    proxy.errors                    proxy.sockets   proxy.systemd   proxy.pages     proxy.origin    proxy.plain
    proxy
"""

FLOORS = [line.split() for line in HOUSE.replace("\\\n", " ").split("\n") if line.strip()]
LEVEL = {name: len(FLOORS) - depth for depth, names in enumerate(FLOORS) for name in names}

#: Protocol code and values: plain Python, which needs no event loop and no sockets.
PURE = (
    *(
        "proxy.errors",
        "proxy.events",
        "proxy.requests",
        "proxy.sse",
        "proxy.template",
        "proxy.refusals",
        "proxy.blocks",
        "proxy.dialects",
        "proxy.pipes",
    ),
    *("proxy.registry", "proxy.routing", "proxy.providers", "proxy.origin", "proxy.settings", "proxy.scrub"),
    *("proxy.pages", "proxy.fields"),
)
FORBIDDEN = {"asyncio", "aiohttp", "uvloop", "socket", "threading"}


@cache
def modules() -> dict[str, str]:
    """Name → source of everything in the house."""
    found = {}
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


@cache
def imports(name: str, source: str, known: frozenset[str]) -> set[str]:
    """What a module imports, wherever in it, for types only too: whole names of modules."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively: say the whole name"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {whole if whole in known else node.module for whole in names}
    return found


def unit(module: str) -> str | None:
    """The name in the house under which a module stands."""
    while module and module not in LEVEL:
        module = module.rpartition(".")[0]
    return module if module != "proxy" else None


def wrong_arrows(sources: dict[str, str]) -> list[str]:
    """Every import that does not look downwards, as a sentence."""
    wrong = []
    for name, source in sources.items():
        here = unit(name) or name
        if here not in LEVEL:
            wrong.append(f"{name} has no place in the order of the house")
            continue
        for imported in sorted(imports(name, source, frozenset(sources))):
            if imported.partition(".")[0] != "proxy":
                continue
            there = unit(imported) or "proxy"
            # A package's own __init__ stands between its modules; that is no arrow to another unit.
            if here == there or imported == "proxy":
                continue
            if LEVEL[there] >= LEVEL[here]:
                wrong.append(f"{name} imports {imported}, which does not stand below it")
    return wrong


def impure(sources: dict[str, str]) -> list[str]:
    """Every way from protocol code to an event loop, as a sentence."""
    known, wrong = frozenset(sources), []
    reached = {name: {name} for name in sources if any(name == p or name.startswith(f"{p}.") for p in PURE)}
    for start, seen in reached.items():
        open_ = [start]
        while open_:
            name = open_.pop()
            for imported in imports(name, sources[name], known):
                if imported.partition(".")[0] in FORBIDDEN:
                    wrong.append(f"{start} comes to {imported}" + (f" through {name}" if name != start else ""))
                elif imported in known and imported not in seen:
                    seen.add(imported)
                    open_.append(imported)
    return wrong


def test_every_import_looks_downwards():
    assert wrong_arrows(modules()) == []


def test_protocol_code_knows_no_event_loop():
    assert impure(modules()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        pytest.param("proxy.errors", "from proxy.sse import encode", id="upwards"),
        pytest.param("proxy.sse", "import proxy.pipes", id="upwards-by-import"),
        pytest.param("proxy.sse", "from proxy import pipes", id="upwards-from-the-package"),
        pytest.param("proxy.pipes", "def f():\n    from proxy.relay import Relay", id="inside-a-function"),
        pytest.param("proxy.pipes", "if TYPE_CHECKING:\n    from proxy.relay import Relay", id="for-types"),
        pytest.param("proxy.events", "from proxy.requests import Request", id="sideways"),
        pytest.param("proxy.dialects.gemini.errors", "from proxy.dialects import openai_chat", id="another-dialect"),
        pytest.param("proxy.dialects.openai_chat.tap", "from proxy.pipes import Tap", id="a-dialect-and-pipes"),
        pytest.param("proxy.relay", "from proxy.attempt import Attempt", id="the-pump-and-its-user"),
        pytest.param("proxy.handlers", "from proxy.express import Express", id="handlers-and-the-way-to-them"),
        pytest.param("proxy.plain", "from proxy.connection import Connection", id="requests-and-their-connection"),
        pytest.param("proxy.settings.schema", "from proxy.app import build_app", id="settings-and-the-app"),
        pytest.param("proxy.pages", "from proxy.gateway import Gateway", id="a-module-that-stands-lower"),
        pytest.param("proxy.utils", "", id="a-module-without-a-place"),
    ],
)
def test_a_wrong_arrow_is_told(module, line):
    assert wrong_arrows({**modules(), module: line})


@pytest.mark.parametrize(
    ("module", "line"),
    [
        pytest.param("proxy.sse", "import asyncio", id="directly"),
        pytest.param("proxy.errors", "from aiohttp import web", id="from-a-library"),
        pytest.param("proxy.routing.decide", "import asyncio.events", id="a-part-of-it"),
        pytest.param("proxy.settings.keys", "def f():\n    import aiohttp", id="inside-a-function"),
        pytest.param("proxy.scrub", "from proxy import systemd", id="through-another-module"),
    ],
)
def test_a_way_to_an_event_loop_is_told(module, line):
    assert impure({**modules(), module: line})


def test_protocol_code_loads_no_event_loop():
    """The same, as Python sees it."""
    pure = [name for name in modules() if any(name == p or name.startswith(f"{p}.") for p in PURE)]
    assert len(pure) > 30
    script = f"import sys, {', '.join(pure)}; print(sorted({{'asyncio', 'aiohttp'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert (run.stdout, run.stderr) == (b"[]\n", b"")
