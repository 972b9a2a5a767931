"""Proxies by name with their settings, as they are written on a command line: zen(repeats=2)."""

from __future__ import annotations

import re

from evaluators.zero_cost.proxy import Proxy
from nas import registry
from nas.errors import ConfigurationError

WRITTEN = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*", re.DOTALL)


def proxy(text: str) -> Proxy:
    """The proxy that a text names: a name, or name(setting=value, ...)."""
    match = WRITTEN.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f'"{text}" names no proxy; write a name, or a name with settings as in zen(repeats=2).'
        )
    name, inner = match.groups()
    settings: dict[str, str] = {}
    for part in (inner or "").split(","):
        if not part.strip():
            continue
        key, sign, value = part.partition("=")
        if not sign:
            raise ConfigurationError(
                f'"{part.strip()}" in "{text}" is not setting=value, as in zen(repeats=2).'
            )
        settings[key.strip()] = value.strip()
    made: Proxy = registry.make("proxy", name, settings)
    return made
