"""Configuration: a flag overrides the environment, which overrides the default; each setting is explained."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from diffugen_api.v1alpha1 import S3
from diffugen_operator.main import main
from diffugen_operator.settings import Settings, described, flag_of, table

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def read(environment: dict[str, str], flags: dict[str, str | None]) -> Settings:
    """Read the settings with only this environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DIFFUGEN_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        return Settings.read(flags)


def test_the_flag_wins_over_the_environment() -> None:
    environment = {"DIFFUGEN_SCRAPE_INTERVAL": "1", "DIFFUGEN_WORKERS": "3", "UNRELATED": "x"}
    settings = read(environment, {"scrape_interval": "2.5", "workers": None})

    assert (settings.scrape_interval, settings.workers, settings.backoff_base) == (2.5, 3, 0.5)


def test_namespaces_are_a_list_and_none_means_all() -> None:
    assert read({}, {"namespaces": "vision, audio"}).namespaces == ("vision", "audio")
    assert read({"DIFFUGEN_NAMESPACES": "vision"}, {"namespaces": ""}).namespaces == ()


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("workers", "many", "a whole number"),
        ("workers", "0", "a whole number, 1 or more"),
        ("workers", "2.5", "a whole number"),
        ("scrape_concurrency", "-1", "a whole number, 1 or more"),
        ("scrape_interval", "soon", "a number of seconds"),
        ("scrape_interval", "nan", "a number of seconds above 0"),
        ("resync_interval", "inf", "a number of seconds above 0"),
        ("watch_silence", "0", "a number of seconds above 0"),
        ("backoff_base", "0", "a number of seconds above 0"),
        ("no_progress_after", "-1", "a number of seconds, 0 or more"),
        ("job_ttl", "-1", "a whole number of seconds, 0 or more"),
        ("http_port", "65536", "a port, 0 to 65535"),
        ("log_level", "LOUD", "one of DEBUG, INFO, WARNING, ERROR"),
        ("log_format", "xml", "one of text, json"),
        ("namespaces", "vision,Team_A", "names of namespaces"),
        ("namespaces", "a" * 64, "names of namespaces"),
        ("lease_namespace", "a/b", "the name of a namespace"),
        ("ca_config_map", "a/b", "the name of a ConfigMap"),
        ("ca_config_map", "a" * 254, "the name of a ConfigMap"),
    ],
)
def test_an_invalid_setting_is_named_with_its_flag_its_variable_and_the_fix(name: str, text: str, wanted: str) -> None:
    variable = f"DIFFUGEN_{name.upper()}"
    with pytest.raises(ValueError, match=rf"--{name.replace('_', '-')} \({variable}\) is '.+': set it to {wanted}"):
        read({variable: text}, {})


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("store_endpoint", "minio:9000", "scheme, host and port"),
        ("store_bucket", "Data", "a bucket's name"),
        ("store_bucket", "", "a bucket's name"),
        ("store_prefix", "a/../b", "a folder"),
        ("store_region", "r" * 64, "a region's name"),
        ("store_addressing_style", "host", "auto, path or virtual"),
        ("store_secret", "My_Secret", "a Secret's name"),
    ],
)
def test_a_default_store_that_is_invalid_in_a_dataset_is_refused(name: str, text: str, wanted: str) -> None:
    store = {"DIFFUGEN_STORE_ENDPOINT": "http://minio:9000", "DIFFUGEN_STORE_BUCKET": "data"}
    variable = f"DIFFUGEN_{name.upper()}"

    with pytest.raises(ValueError, match=rf"--{name.replace('_', '-')} \({variable}\) is '.*': set it to {wanted}"):
        read({**store, variable: text}, {})


@pytest.mark.parametrize("name", ["store_bucket", "store_prefix", "store_secret"])
def test_a_part_of_a_default_store_without_an_endpoint_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no default store: set --store-endpoint too"):
        read({f"DIFFUGEN_{name.upper()}": "data"}, {})


def test_a_default_store_is_parsed_like_a_datasets_own() -> None:
    settings = Settings(
        store_endpoint="https://s3.example",
        store_bucket="data",
        store_prefix="team",
        store_secret="keys",
        store_addressing_style="virtual",
    )

    assert Settings().default_store is None
    assert settings.default_store == S3.model_validate(
        {
            "endpoint": "https://s3.example",
            "bucket": "data",
            "prefix": "team",
            "addressingStyle": "virtual",
            "secretRef": {"name": "keys"},
        }
    )


@pytest.mark.parametrize(
    ("environment", "served"),
    [
        ({"DIFFUGEN_NAMESPACE": "vision"}, ("vision",)),
        ({"DIFFUGEN_NAMESPACE": "vision", "DIFFUGEN_NAMESPACES": "vision"}, ("vision",)),
        ({"DIFFUGEN_NAMESPACES": "vision,audio,vision"}, ("vision", "audio")),
    ],
)
def test_a_namespace_may_be_named_in_the_singular(environment: dict[str, str], served: tuple[str, ...]) -> None:
    assert read(environment, {}).namespaces == served


def test_two_variables_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="set one of them"):
        read({"DIFFUGEN_NAMESPACE": "vision", "DIFFUGEN_NAMESPACES": "audio"}, {})


def test_every_setting_is_explained() -> None:
    assert [name for name in Settings.model_fields if not described()[name]] == []


def test_the_documentation_has_every_setting_unchanged() -> None:
    assert table() in OPERATIONS.read_text(), f"docs/operations.md should have this table:\n{table()}"


def test_the_help_shows_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    said = capsys.readouterr().out
    assert all(flag_of(name) in said for name in Settings.model_fields)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "many"], "--workers (DIFFUGEN_WORKERS) is 'many': set it to a whole number, 1 or more"),
        (["-A", "-n", "vision"], "--all-namespaces and --namespace contradict each other"),
        (["-n", ""], "--namespace is empty"),
        (["--surprise"], "unrecognized arguments: --surprise"),
    ],
)
def test_bad_flags_are_refused_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    said = capsys.readouterr().err
    assert ended.value.code == 64
    assert words in said
    assert said.count("\n") == 1


def test_a_port_in_use_is_reported_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main(["--http-host", "127.0.0.1", "--http-port", str(taken.getsockname()[1])])

    assert "Address already in use; set --http-host or --http-port" in str(ended.value.code)
