"""``config.toml`` as one frozen, typed ``Settings``, or one line that says what is wrong with it."""

from proxy.settings.faults import SettingsError
from proxy.settings.loading import Loaded, load
from proxy.settings.references import Secret
from proxy.settings.schema import (
    Auth,
    Cache,
    Cors,
    Defaults,
    Deployment,
    Key,
    Limits,
    Log,
    Model,
    Overrides,
    Price,
    Provider,
    Routing,
    Server,
    Settings,
    State,
    Stream,
    Timeouts,
)

__all__ = [
    "Auth",
    "Cache",
    "Cors",
    "Defaults",
    "Deployment",
    "Key",
    "Limits",
    "Loaded",
    "Log",
    "Model",
    "Overrides",
    "Price",
    "Provider",
    "Routing",
    "Secret",
    "Server",
    "Settings",
    "SettingsError",
    "State",
    "Stream",
    "Timeouts",
    "load",
]
