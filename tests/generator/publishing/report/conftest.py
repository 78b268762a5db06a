"""A real Chromium for the tests of the page: Debian's package `chromium`, or what `CHROMIUM` names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.generator.publishing.report.datasets import Published, published

REQUIRED = "CHROMIUM_REQUIRED"
"""Set where a missing browser is a failure: `.ci/run` does."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if program is None:
        assert not os.environ.get(REQUIRED), (
            f"chromium is not installed, and {REQUIRED} is set: apt-get install chromium"
        )
        pytest.skip("chromium is not installed: apt-get install chromium")
    expect.set_options(timeout=60_000)  # a busy machine is no fault of the page
    with sync_playwright() as playwright:
        # as root, and in most containers, Chromium cannot start its sandbox
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def faults() -> list[str]:
    """What the page logged as an error, and what it asked for besides files; a test that expects some clears it."""
    return []


@pytest.fixture
def page(browser: Browser, faults: list[str]) -> Iterator[Page]:
    """A page of 1440 x 900; the test fails if it logs an error or asks for anything but the dataset's own files."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(60_000)
    opened = context.new_page()
    opened.on("console", lambda each: faults.append(each.text) if each.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda each: faults.append(each.url) if not each.url.startswith("file:") else None)
    yield opened
    context.close()
    assert faults == []


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The dataset, labeled by attention."""
    return published(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def made_twice_labeled(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The dataset, labeled by attention and by a detector, which must agree."""
    return published(tmp_path_factory.mktemp("report"), detector=True)
