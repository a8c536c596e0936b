from __future__ import annotations

import pytest

from proxy.settings import Loaded, Overrides, SettingsError, load


@pytest.fixture
def place(tmp_path):
    return tmp_path / "config.toml"


@pytest.fixture
def loaded(place):
    def load_text(text: str, environ: dict[str, str] | None = None, overrides: Overrides | None = None) -> Loaded:
        place.write_text(text, encoding="utf-8")
        return load(place, environ or {}, overrides)

    return load_text


@pytest.fixture
def settings(loaded):
    return lambda *args, **more: loaded(*args, **more).settings


@pytest.fixture
def complaint(loaded, tmp_path):
    """The line for the operator, as it reads in the file's own directory."""

    def of(*args, **more) -> str:
        with pytest.raises(SettingsError) as caught:
            loaded(*args, **more)
        line = str(caught.value)
        assert "\n" not in line
        return line.replace(f"{tmp_path}/", "")

    return of
