"""Configuration: flag before environment before default, each one explained."""

from __future__ import annotations

from dataclasses import fields

import pytest

from diffugen_operator.main import main
from diffugen_operator.settings import Settings, described


def test_the_flag_wins_over_the_environment() -> None:
    environment = {"DIFFUGEN_SCRAPE_INTERVAL": "1", "DIFFUGEN_WORKERS": "3", "UNRELATED": "x"}
    settings = Settings.read(environment, {"scrape_interval": "2.5", "workers": None})

    assert (settings.scrape_interval, settings.workers, settings.backoff_base) == (2.5, 3, 0.5)


def test_namespaces_are_a_list_and_none_means_all() -> None:
    assert Settings.read({}, {"namespaces": "vision, audio"}).namespaces == ("vision", "audio")
    assert Settings.read({"DIFFUGEN_NAMESPACES": "vision"}, {"namespaces": ""}).namespaces == ()


def test_what_cannot_be_read_is_named() -> None:
    with pytest.raises(ValueError, match="workers: 'many' is no int"):
        Settings.read({"DIFFUGEN_WORKERS": "many"}, {})


def test_every_setting_is_explained() -> None:
    assert {field.name for field in fields(Settings)} == set(described())


def test_the_help_shows_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    said = capsys.readouterr().out
    assert all(f"--{field.name.replace('_', '-')}" in said for field in fields(Settings))


def test_a_bad_flag_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--workers", "many"])

    assert "workers: 'many' is no int" in capsys.readouterr().err
