"""Providers with an authority of their own, and those that want to know who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxy.settings import SettingsError
from tests.certificates import Authority

from .speakers import OPENAI, forms
from .upstream import DONE, Gate, Upstream, chunk, gated_stream, ordinary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.certificates import Pair

    from .upstream import Call


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "Our CA")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"), "Another CA")


@pytest.fixture
async def before(gateway: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """Start a gateway before a provider that speaks TLS: ``one, upstream = await before(context, ca=...)``."""
    started: list[tuple[Any, Upstream]] = []

    async def start(context: Any, **tls: Any) -> tuple[Any, Upstream]:
        upstream = await Upstream(ordinary(), tls=context).listen()
        one = await gateway(url=upstream.url, **told(**tls))
        started.append((one, upstream))
        return one, upstream

    yield start
    for one, upstream in started:
        await one.close()
        await upstream.quiet()
        await upstream.stop()


def told(**tls: Any) -> dict[str, Any]:
    """The provider's settings for these files."""
    return {"providers": [{"name": "up", "tls": {name: str(file) for name, file in tls.items()}}]}


def client(call: Call) -> str:
    """Who the gateway said it was."""
    certificate = call.connection._transport.get_extra_info("peercert")
    return certificate["subject"][0][0][1]


async def refused(one: Any, speaker: Any, *, streamed: bool) -> str:
    """The message of a refusal that names nothing of ours and of the provider's."""
    answer = await speaker.ask(one, stream=streamed)
    assert answer.status == 502
    message = speaker.error(await answer.json()).message
    assert not [word for word in ("127.0.0.1", "localhost", "Another", "Our CA", ".pem", "/") if word in message]
    return message


@forms
async def test_an_authority_of_ones_own_is_believed(before, ours, speaker, streamed):
    one, upstream = await before(ours.server(), ca=ours.ca)
    answer = await speaker.ask(one, stream=streamed)
    assert answer.status == 200
    await answer.rest()
    assert len(upstream.calls) == 1


async def test_a_server_s_own_certificate_is_believed_where_it_is_named(before, ours):
    context = ours.server()
    one, _ = await before(context, ca=ours.ca.with_name("server.pem"))
    assert (await one.chat()).status == 200


@forms
@pytest.mark.parametrize("named", [True, False], ids=["another-ca", "the-system-s"])
async def test_another_authority_is_not(before, ours, theirs, speaker, streamed, named):
    one, upstream = await before(ours.server(), **({"ca": theirs.ca} if named else {}))
    assert (await refused(one, speaker, streamed=streamed)).startswith("the provider's certificate is not trusted: ")
    assert upstream.calls == []


async def test_a_certificate_for_another_name_is_not(before, ours, theirs):
    context = theirs.server()
    context.load_cert_chain(*ours.issue("elsewhere", alternative="DNS:elsewhere.example"))
    one, _ = await before(context, ca=ours.ca)
    assert "not trusted" in await refused(one, OPENAI, streamed=True)


@pytest.mark.parametrize("apart", [True, False], ids=["two-files", "one-file"])
async def test_a_provider_that_asks_who_we_are_is_told(before, ours, theirs, tmp_path, apart):
    pair = theirs.issue("gateway 1", tmp_path / "client")
    files = {"certificate": pair.certificate, "key": pair.key}
    if not apart:
        pair.certificate.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
        del files["key"]
    one, upstream = await before(ours.server(asks=theirs), ca=ours.ca, **files)
    assert (await one.chat()).status == 200
    assert client(await upstream.arrived()) == "gateway 1"


@forms
@pytest.mark.parametrize("shown", [True, False], ids=["a-stranger-s", "none"])
async def test_a_provider_that_does_not_know_us_refuses(before, ours, theirs, speaker, streamed, shown):
    pair = ours.issue("stranger")
    files = {"certificate": pair.certificate, "key": pair.key} if shown else {}
    one, upstream = await before(ours.server(asks=theirs), ca=ours.ca, **files)
    await refused(one, speaker, streamed=streamed)
    assert upstream.calls == []


# Reloads


@pytest.fixture
async def known(before, ours, theirs, tmp_path) -> tuple[Any, Upstream, Pair, dict[str, Any]]:
    """A gateway that has shown its certificate once, its files, and what was said of them."""
    pair = theirs.issue("gateway 1", tmp_path / "client")
    files = {"ca": ours.ca, "certificate": pair.certificate, "key": pair.key}
    one, upstream = await before(ours.server(asks=theirs), **files)
    assert (await one.chat()).status == 200
    await one.idle()
    assert client(await upstream.arrived()) == "gateway 1"
    return one, upstream, pair, told(**files)


async def test_a_reload_without_news_keeps_connections(known):
    one, upstream, _, settings = known
    one.swap(**settings)
    assert (await one.chat()).status == 200
    assert (await upstream.arrived()).reused


async def test_a_renewed_certificate_is_shown_after_a_reload(known, theirs, tmp_path):
    one, upstream, _, settings = known
    theirs.issue("gateway 2", tmp_path / "client")
    assert (await one.chat()).status == 200
    assert client(await upstream.arrived()) == "gateway 1"  # nobody has said that there is another one
    for number in range(2):
        await one.idle()
        one.swap(**settings)
        assert (await one.chat()).status == 200
        call = await upstream.arrived()
        assert (client(call), call.reused) == ("gateway 2", number == 1)


async def test_a_running_stream_keeps_the_certificate_that_it_began_with(known, theirs, tmp_path):
    one, upstream, _, settings = known
    gate = Gate()
    upstream.script = gated_stream([chunk("a"), chunk(finish="stop"), DONE], gate)
    gate.open()
    answer = await OPENAI.ask(one)
    theirs.issue("gateway 2", tmp_path / "client")
    one.swap(**settings)
    gate.open_all()
    assert (await OPENAI.heard(answer)).complete
    assert client(await upstream.arrived()) == "gateway 1"


async def test_a_reload_that_finds_half_of_the_files_changes_nothing(known, theirs):
    """As they are between two steps of a renewal."""
    one, upstream, pair, settings = known
    pair.key.write_bytes(theirs.issue("gateway 2").key.read_bytes())
    with pytest.raises(SettingsError, match=r'tls: key: the file ".*client\.key" has the key of another certificate'):
        one.swap(**settings)
    assert (await one.chat()).status == 200
    call = await upstream.arrived()
    assert (client(call), call.reused) == ("gateway 1", True)


async def test_two_providers_at_one_address_are_two(before, ours, theirs, tmp_path):
    """What one is told, the other must not be asked with."""
    pairs = [theirs.issue(name, tmp_path / name[-1]) for name in ("gateway 1", "gateway 2")]
    files = [{"ca": ours.ca, "certificate": pair.certificate, "key": pair.key} for pair in pairs]
    one, upstream = await before(ours.server(asks=theirs), **files[0])
    [first], [second] = (told(**each)["providers"] for each in files)
    other = {"name": "other", "kind": "openai", "base_url": upstream.url, "tls": second["tls"]}
    one.swap(providers=[first, other], models=[{"id": "m"}, {"id": "n", "provider": "other"}])
    for model in "mnmn":
        assert (await one.chat(model=model)).status == 200
        await one.idle()
    assert [client(call) for call in upstream.calls] == ["gateway 1", "gateway 2"] * 2
    assert [call.reused for call in upstream.calls] == [False, False, True, True]
