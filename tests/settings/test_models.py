"""Models: each name once, deployed where there is a provider."""

from __future__ import annotations

import pytest

from proxy.settings import Deployment
from tests.settings.tables import DEMO, PROVIDER


def test_a_provider_in_a_model_is_short_for_one_deployment(settings):
    found = settings(PROVIDER + '[[models]]\nid = "m"\nprovider = "there"\n').models[0]
    assert found.deployments == (Deployment(provider="there", upstream="m", weight=1),)
    assert not found.wildcard


def test_a_model_has_what_its_table_says(settings):
    text = (
        f"{PROVIDER}{DEMO}"
        '[[models]]\nid = "openai/*"\nprovider = "there"\n'
        '[[models]]\nid = "coder"\nlabel = "Coder"\ndescription = "Codes."\naliases = ["gpt-4"]\ncontext = 100\n'
        'deployments = [ { provider = "there", upstream = "@cf/a:b", weight = 2 }, { provider = "demo" } ]\n'
        'fallbacks = ["openai/gpt-4o"]\ntimeouts = { first_byte = 7 }\nprice = { input = 0.27, output = 1 }\n'
    )
    wildcard, coder = settings(text).models
    assert wildcard.wildcard
    assert wildcard.deployments == (Deployment(provider="there", upstream=""),)
    assert coder.deployments == (
        Deployment(provider="there", upstream="@cf/a:b", weight=2),
        Deployment(provider="demo", upstream="coder"),
    )
    assert (coder.label, coder.description, coder.aliases, coder.context) == ("Coder", "Codes.", ("gpt-4",), 100)
    assert (coder.fallbacks, coder.timeouts) == (("openai/gpt-4o",), {"first_byte": 7.0})
    assert (coder.price.input, coder.price.output, coder.price.cached) == (0.27, 1.0, None)


UNUSABLE = "is not a name that can go upstream: 1 to 200 letters, digits and @._:/- without empty, . or .. segments"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        pytest.param('id = "m"', "provider: is missing (or deployments, for more than one)", id="nowhere"),
        pytest.param(
            'id = "m"\nprovider = "thre"', 'provider: unknown provider "thre"; did you mean "there"?', id="provider"
        ),
        pytest.param(
            'id = "m"\ndeployments = [ { provider = "x" } ]',
            'deployments[0]: provider: unknown provider "x"',
            id="provider-of-a-deployment",
        ),
        pytest.param('id = "m"\ndeployments = []', "deployments: is empty", id="no-deployments"),
        pytest.param(
            'id = "m"\nprovider = "there"\ndeployments = []',
            "deployments: name providers themselves; leave out provider and upstream beside them",
            id="both-forms",
        ),
        pytest.param(
            'id = "m"\ndeployments = [ { provider = "there" }, { provider = "there" } ]',
            "deployments[1]: is the same as one before it; use weight instead",
            id="deployed-twice",
        ),
        pytest.param(
            'id = "m"\ndeployments = [ { provider = "there", weight = 0 } ]',
            "deployments[0]: weight: must be at least 1",
            id="weightless",
        ),
        pytest.param('id = "m"\nprovider = "there"\nupstream = "a b"', f'upstream: "a b" {UNUSABLE}', id="space"),
        pytest.param('id = "m"\nprovider = "there"\nupstream = ""', f'upstream: "" {UNUSABLE}', id="empty-upstream"),
        pytest.param(
            'id = "m"\nprovider = "there"\nupstream = "a/../b"', f'upstream: "a/../b" {UNUSABLE}', id="climbs"
        ),
        pytest.param('id = "m"\nprovider = "there"\nupstream = "/a"', f'upstream: "/a" {UNUSABLE}', id="leading-slash"),
        pytest.param(
            'id = "m"\nprovider = "there"\nupstream = "a//b"', f'upstream: "a//b" {UNUSABLE}', id="empty-segment"
        ),
        pytest.param('id = "m&n"\nprovider = "there"', f'upstream: "m&n" {UNUSABLE}', id="id-that-cannot-go-upstream"),
        pytest.param(
            'id = "a*b"\nprovider = "there"',
            'id: "a*b": only an id can have a "*", and only as its end',
            id="star-inside",
        ),
        pytest.param(
            'id = "m"\nprovider = "there"\naliases = ["gpt-*"]',
            'aliases: "gpt-*": only an id can have a "*", and only as its end',
            id="wildcard-alias",
        ),
        pytest.param(
            'id = "a b"\nprovider = "there"',
            'id: "a b": must be 1 to 200 visible ASCII characters, without spaces and "#%*?\\',
            id="id-with-a-space",
        ),
        pytest.param(
            'id = "a/../b"\nprovider = "there"',
            'id: "a/../b": must not have empty, . or .. segments',
            id="id-that-climbs",
        ),
        pytest.param(
            'id = "m"\nprovider = "there"\naliases = ["m"]',
            'aliases: "m" is already a name of this model',
            id="own-alias",
        ),
        pytest.param(
            'id = "m"\nprovider = "there"\nfallbacks = ["frist"]',
            'fallbacks: unknown model "frist"; did you mean "first"?',
            id="fallback-to-nothing",
        ),
        pytest.param(
            'id = "m"\nprovider = "there"\nfallbacks = ["m"]',
            'fallbacks: "m" is this model itself',
            id="falls-on-itself",
        ),
        pytest.param(
            'id = "second"\nprovider = "there"', 'id: "second" is already a name of "first"', id="id-is-another's-alias"
        ),
        pytest.param(
            'id = "m"\nprovider = "there"\naliases = ["first"]',
            'aliases: "first" is already a name of "first"',
            id="alias-is-another's-id",
        ),
        pytest.param('id = "m"\nprovider = "there"\ncontext = 0', "context: must be at least 1", id="no-context"),
    ],
)
def test_a_model_that_could_not_be_served_is_told(complaint, model, sentence):
    first = '[[models]]\nid = "first"\nprovider = "there"\naliases = ["second"]\n'
    line = complaint(f"{PROVIDER}{first}[[models]]\n{model}")
    assert line.partition('": ')[2] == sentence
    assert line.startswith('config.toml: models[1] "')


@pytest.mark.parametrize("name", ["m", "gpt-4", "openai/gpt-4o"], ids=["id", "alias", "under-a-wildcard"])
def test_a_default_is_a_name_that_a_client_could_ask_for(settings, name):
    exact = '[[models]]\nid = "m"\nprovider = "there"\naliases = ["gpt-4"]\n'
    wildcard = '[[models]]\nid = "openai/*"\nprovider = "there"\n'
    assert settings(f'{PROVIDER}{exact}{wildcard}[defaults]\nchat = "{name}"').defaults.chat == name


@pytest.mark.parametrize("name", ["n", "openai/", "openai/*", "openai/../x"])
def test_a_default_that_nobody_could_ask_for_is_refused(complaint, name):
    text = f'{PROVIDER}[[models]]\nid = "openai/*"\nprovider = "there"\n[defaults]\ncode = "{name}"'
    assert complaint(text) == f'config.toml: defaults: code: unknown model "{name}"'
