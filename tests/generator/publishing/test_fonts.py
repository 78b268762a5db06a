"""Texts in pictures: every letter is drawn, or spelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffugen_generator.publishing import fonts


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_system_fonts", tuple)
    fonts._font_with.cache_clear()


@pytest.mark.usefixtures("no_fonts")
@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a red ball …", "a red ball …"),
        ("grün", "grun"),
        ("café", "cafe"),
        ("球", "U+7403"),
        ("traffic light", "traffic light"),
    ],
)
def test_a_letter_that_no_font_has_is_spelled(text: str, written: str) -> None:
    found, font = fonts.writable(text, 15)

    assert found.replace("...", "…") == written
    assert font.size == 15


def test_a_font_of_the_system_with_the_letters_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    dejavu = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ("/nothing.ttf", dejavu))
    fonts._font_with.cache_clear()

    found, font = fonts.writable("grün мяч", 20)

    assert found == "grün мяч"
    assert (font.path, font.size) == (dejavu, 20)
    fonts._font_with.cache_clear()
