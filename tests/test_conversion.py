"""Values of a command line or a file, as the types that settings have."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from nas.conversion import convert
from nas.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("depth:2,width:8", {"depth": "2", "width": "8"}),
        (" a/b.c/d : none ", {"a/b.c/d": "none"}),
        ("", {}),
        ({"depth": 2, "normalization": "pre"}, {"depth": "2", "normalization": "pre"}),
    ],
)
def test_a_mapping_is_a_table_or_pairs(given, read):
    assert convert(given, Mapping[str, str], "fixed") == read


def test_the_values_of_a_mapping_are_converted():
    assert convert("a:1,b:2.0", Mapping[str, int], "counts") == {"a": 1, "b": 2}
    with pytest.raises(ConfigurationError, match='"b" of counts'):
        convert("a:1,b:x", Mapping[str, int], "counts")


@pytest.mark.parametrize("given", ["depth", "depth=2", ":2", 3])
def test_what_is_no_mapping_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"it takes a table|it takes KEY:VALUE"):
        convert(given, Mapping[str, str], "fixed")
