"""Names of classes as names of files and folders."""

from __future__ import annotations

import pytest

from diffugen_generator.publishing.safe_names import safe_names


@pytest.mark.parametrize("name", ["ball", "Traffic Sign 2", "signal_light", "far-off satellite", "caf\u00e9", "\u7403"])
def test_names_that_every_file_system_allows_stay(name: str) -> None:
    assert safe_names([name]) == {name: name}


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("traffic light/red", "traffic light_red"),
        ("../../etc", "_.._.._etc"),
        ("..", "_"),
        (".hidden", "_.hidden"),
        ("a:b*c?", "a_b_c_"),
        ("C\\D", "C_D"),
        ("end.", "end"),
        ("NUL", "_NUL"),
        ("com1.txt", "_com1.txt"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_other_names_become_safe(name: str, safe: str) -> None:
    assert safe_names([name]) == {name: safe}


def test_names_stay_different_without_regard_to_case() -> None:
    names = ["a/b", "a:b", "A_B", "a_b-2"]

    found = safe_names(names)

    assert list(found) == names
    assert len({each.casefold() for each in found.values()}) == 4
    assert found["a/b"] == "a_b"


def test_long_names_are_cut_between_characters() -> None:
    (safe,) = safe_names(["\u7403" * 100]).values()

    assert safe == "\u7403" * 66
