"""Errors a user can mend: each says what was given, what is allowed and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class NasgramError(Exception):
    """Something the user gave cannot be used; the message is one sentence to act on."""


class SearchSpaceError(NasgramError):
    """A search space, an architecture or its text is malformed or does not fit."""


class ConfigurationError(NasgramError):
    """A part's name, a field or an option is wrong."""


class DataError(NasgramError):
    """A data file is missing, unreadable or not of the expected form."""


class StorageError(NasgramError):
    """A study's storage cannot be opened, or holds something else than was asked for."""


class WorkerError(NasgramError):
    """A process that worked on a study failed, or died again and again; the study is whole."""


def unknown(given: str, of: str, allowed: Iterable[str]) -> str:
    """The sentence for a name that is not among the allowed ones, with the nearest of them."""
    names = list(allowed)
    near = get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f'; did you mean "{near[0]}"?' if near else "."
    listed = ", ".join(names) if names else "none"
    return f'"{given}" is not {of}{hint} Allowed: {listed}.'
