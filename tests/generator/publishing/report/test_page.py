"""The report in a real Chromium: views, filters, layers, links, the threshold, accessibility."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from diffugen_api.plan import Sample
from diffugen_generator.commands.published_at import published_at
from diffugen_generator.commands.view import serving
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.report import report as report_module
from diffugen_generator.publishing.report.index_columns import IndexColumns
from diffugen_generator.quality.verdicts import Verdict, verdict_on
from diffugen_generator.samples.labels import Label
from tests.generator.made import manifest_lines, planned_shards
from tests.generator.publishing.report.datasets import CLASSES, HEIGHT, HOSTILE, WIDTH, Published, label_at, published

VIEWS = ("gallery", "distributions", "coverage", "rejections", "labelers", "threshold", "provenance")


def opened(page: Page, made: Published, hash_: str = "") -> Page:
    page.goto("about:blank")
    page.goto(f"{made.page}#{hash_}")
    page.wait_for_selector("html[data-state=ready]")
    return page


def lines_of(made: Published) -> list[dict[str, Any]]:
    return manifest_lines(made.store, made.order.revision)


def found(page: Page) -> int:
    text = page.locator("#found").text_content() or ""
    return int(text.split()[0].replace(",", ""))


def until(page: Page, expression: str) -> None:
    """Wait until an expression is true. The page's policy forbids the `eval` that playwright's own waiting needs."""
    end = time.monotonic() + 60
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def address(page: Page) -> str:
    """The page's address as the page has it; `page.url` follows by an event, and may be an older one."""
    return str(page.evaluate("location.href"))


def painted(page: Page) -> None:
    """Wait until the first tile shows its image."""
    page.wait_for_selector(".tiles > li[data-painted]")


def colors(page: Page, selector: str) -> int:
    """The number of colors of a canvas. It is read from a screenshot: a page from a folder may not read its images."""
    return len(Image.open(BytesIO(page.locator(selector).first.screenshot())).convert("RGB").getcolors(1 << 24) or [])


def test_the_gallery_shows_the_published_images(page: Page, made: Published) -> None:
    accepted = [line for line in lines_of(made) if line["accepted"]]

    opened(page, made)
    painted(page)

    assert found(page) == len(accepted)
    tiles = page.locator(".tiles > li")
    assert tiles.count() == min(48, len(accepted))
    expect(tiles.first).to_contain_text(accepted[0]["prompt"])
    expect(page.locator("h1")).to_have_text("shapes")
    assert colors(page, ".tiles canvas") > 50, "the thumbnail and its masks are painted"


@pytest.mark.parametrize(
    ("control", "option", "passes"),
    [
        ("#f-class", "Big Star", lambda line: any(each["class"] == "Big Star" for each in line["instances"])),
        ("#f-split", "val", lambda line: line["split"] == "val"),
        ("#f-stage", "again", lambda line: line["stage"] == "again"),
    ],
)
def test_a_filter_leaves_the_images_that_pass_it(
    page: Page, made: Published, control: str, option: str, passes: Any
) -> None:
    expected = [line["id"] for line in lines_of(made) if line["accepted"] and passes(line)]

    opened(page, made)
    page.select_option(control, label=option)

    assert 0 < found(page) == len(expected)
    assert page.evaluate("Array.from(DiffuGenReport.app.rows, row => DiffuGenReport.app.table.ids[row])") == expected


def test_words_scores_and_reasons_filter_too(page: Page, made: Published) -> None:
    lines = lines_of(made)
    opened(page, made)

    page.fill("#f-words", "BLUE snow")
    until(page, "location.hash.includes('words')")
    assert found(page) == sum(
        line["accepted"] and "blue" in line["prompt"] and "snow" in line["prompt"] for line in lines
    )

    page.click("#clear")
    page.fill("#f-low", "0.5")
    scored = [line for line in lines if line["accepted"] and min(each["score"] for each in line["instances"]) >= 0.5]
    until(page, "location.hash.includes('low')")
    assert abs(found(page) - len(scored)) <= 1, "scores are kept in 8 bits"

    page.click("#clear")
    page.select_option("#f-reason", label="Source rejected")
    assert found(page) == sum(line["reason"] == "SourceRejected" for line in lines) > 0


def test_a_link_opens_the_same_view(page: Page, made: Published) -> None:
    opened(page, made)
    page.select_option("#f-class", label="Big Star")
    page.select_option("#f-split", label="train")
    page.uncheck("#layers [value=boxes]")
    page.check("#layers [value=attention]")
    page.locator(".tile").first.click()
    page.wait_for_selector("#sample[open]")
    link, rows, title = address(page), found(page), page.locator("#sample-title").text_content()

    opened(page, made, link.partition("#")[2])

    assert address(page) == link
    assert found(page) == rows
    assert page.locator("#sample[open] #sample-title").text_content() == title
    checked = page.evaluate(
        "[...document.querySelectorAll('#layers :checked')].map(each => each.value).filter(Boolean)"
    )
    assert [each for each in checked if each] == ["image", "masks", "attention"]


def test_the_back_button_returns_to_the_former_view(page: Page, made: Published) -> None:
    opened(page, made)
    page.click("#tabs >> text=Coverage")
    expect(page.locator("#view-title")).to_have_text("Coverage")

    page.go_back()

    expect(page.locator("#view-title")).to_have_text("Gallery")
    expect(page.locator("#tabs [aria-current]")).to_have_text("Gallery")


@pytest.mark.parametrize("layer", ["image", "masks", "boxes", "names", "attention"])
def test_a_layer_changes_what_a_tile_shows(page: Page, made: Published, layer: str) -> None:
    all_layers = "image,masks,boxes,names,attention"
    opened(page, made, f"layers={quote(all_layers)}")
    painted(page)
    canvas = page.locator(".tiles canvas").first
    before = canvas.screenshot()

    page.uncheck(f"#layers [value={layer}]")
    painted(page)

    assert page.locator(".tiles canvas").first.screenshot() != before


def test_a_derivative_is_shown_beside_its_source(page: Page, made: Published) -> None:
    line = next(line for line in lines_of(made) if line["accepted"] and "source" in line)

    opened(page, made, f"sample={line['id']}")
    page.wait_for_selector("#sample .two canvas")

    figures = page.locator("#sample figure")
    assert figures.count() == 2
    expect(figures.first).to_contain_text("Drawn from this source")
    expect(page.locator("#sample .facts")).to_contain_text(str(line["seed"]))
    figures.first.get_by_role("link").click()
    until(page, f"document.querySelector('#sample .facts').textContent.includes('{line['source']}')")
    expect(page.locator("#sample")).to_contain_text("Drawn from this image")


def test_arrow_keys_and_escape_work(page: Page, made: Published) -> None:
    opened(page, made)
    tiles = page.locator(".tile")
    tiles.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    columns = page.evaluate("getComputedStyle(document.querySelector('.tiles')).gridTemplateColumns.split(' ').length")
    focused = page.evaluate("[...document.querySelectorAll('.tile')].indexOf(document.activeElement)")
    assert focused == 1 + columns

    page.keyboard.press("Enter")
    page.wait_for_selector("#sample[open]")
    first = page.locator("#sample-title").text_content(), address(page)
    page.keyboard.press("ArrowRight")
    until(page, f"location.href !== {json.dumps(first[1])}")
    page.keyboard.press("Escape")

    page.wait_for_selector("#sample", state="hidden")
    until(page, "!location.hash.includes('sample=')")  # By the dialog's event `close`, which comes after it is hidden.
    until(page, f"[...document.querySelectorAll('.tile')].indexOf(document.activeElement) === {focused}")


def test_the_buttons_between_pages_keep_the_focus(page: Page, made: Published) -> None:
    opened(page, made, "status=all")
    pages = -(-found(page) // 48)
    assert pages > 1
    page.focus("[aria-label='Next page']")
    for number in range(2, pages + 1):
        page.keyboard.press("Enter")
        until(page, f"document.querySelector('.pages span').textContent.startsWith('Page {number} of')")

    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == "First page", "the button for the next page is disabled on the last one"


def test_a_prompt_stays_text(page: Page, made: Published) -> None:
    for view in VIEWS:
        opened(page, made, f"view={view}")
        assert page.title().startswith("shapes: "), "no script of a prompt has run"
        assert page.evaluate("document.querySelectorAll('main script, main img, main i').length") == 0
    opened(page, made)
    painted(page)
    hostile = page.locator(".tile-text", has_text="</script>").first
    assert HOSTILE in (hostile.text_content() or "")
    policy = page.get_attribute("meta[http-equiv=Content-Security-Policy]", "content") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_distributions_count_what_the_filters_leave(page: Page, made: Published) -> None:
    train = [line for line in lines_of(made) if line["accepted"] and line["split"] == "train"]
    expected = Counter(each["class"] for line in train for each in line["instances"])

    opened(page, made, "view=distributions&split=train")

    for name in CLASSES:
        row = page.locator("table.sums tbody tr", has_text=name).locator("td").all_text_contents()
        assert [int(cell) for cell in row[:4]] == [expected[name], 0, 0, expected[name]]
    says = page.locator("svg.histogram").first.get_attribute("aria-label") or ""
    assert f": {expected.total()} objects, most at " in says
    assert page.locator("svg.position").count() == len(expected)


def test_coverage_has_every_value_and_links_to_its_images(page: Page, made: Published) -> None:
    lines = [line for line in lines_of(made) if line["variables"].get("color") == "red"]

    opened(page, made, "view=coverage")
    row = page.locator("table", has=page.locator("caption", has_text="Values of color")).locator(
        "tbody tr", has_text="red"
    )

    cells = row.locator("td").all_text_contents()
    kept = [line for line in lines if line["accepted"]]
    assert [int(cell) for cell in cells[:3]] == [len(lines), len(kept), sum(len(line["instances"]) for line in kept)]
    row.get_by_role("link").click()
    expect(page.locator("#chips")).to_contain_text("color: red")
    assert found(page) == len(kept)
    page.click("#chips button")
    assert found(page) == sum(line["accepted"] for line in lines_of(made))


def test_rejections_have_reasons_and_examples(page: Page, made: Published) -> None:
    expected = Counter(line["reason"] for line in lines_of(made) if not line["accepted"])

    opened(page, made, "view=rejections")

    for text, reason in (("Too few instances", "TooFewInstances"), ("Blank picture", "BlankPicture")):
        section = page.locator(f"section[aria-label='{text}']")
        expect(section.locator("h3")).to_contain_text(f"{expected[reason]} image")
        assert section.locator(".tile").count() == min(6, expected[reason])
    dropped = sum(sum(line["dropped"].values()) for line in lines_of(made))
    expect(page.locator("table", has=page.locator("caption", has_text="Objects dropped"))).to_contain_text(str(dropped))


def test_agreement_of_the_labelers_is_counted(page: Page, made_twice_labeled: Published) -> None:
    lines = lines_of(made_twice_labeled)
    kept = Counter(each["class"] for line in lines for each in line["instances"])
    marked = Counter((each["class"], each["by"]) for line in lines for each in line.get("marked", ()))

    opened(page, made_twice_labeled, "view=labelers")

    for name in CLASSES:
        row = page.locator("table", has=page.locator("caption", has_text="Agreement")).locator("tr", has_text=name)
        cells = [int(cell) for at, cell in enumerate(row.locator("td").all_text_contents()) if at != 1]
        assert cells[0] == kept[name]
        assert sum(cells[1:]) == marked[name, "attention"] + marked[name, "detector"]


def test_layers_can_be_switched_only_where_there_are_images(
    page: Page, made: Published, made_twice_labeled: Published
) -> None:
    opened(page, made, "view=labelers")
    expect(page.locator("#view-body")).to_contain_text("One labeler")
    expect(page.locator("#layers")).to_be_hidden()

    opened(page, made, "view=gallery")
    expect(page.locator("#layers")).to_be_visible()

    opened(page, made_twice_labeled, "view=labelers")
    expect(page.locator("#layers")).to_be_visible()


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.75])
@pytest.mark.parametrize("fixture", ["made", "made_twice_labeled"])
def test_the_threshold_decides_as_labeling_does(
    request: pytest.FixtureRequest, page: Page, fixture: str, threshold: float
) -> None:
    data: Published = request.getfixturevalue(fixture)
    spec = data.order.spec
    samples = {row.sample.id: row.sample for _, rows in planned_shards(data.order, data.store) for row in rows}
    opened(page, data, "view=threshold")

    decided = page.evaluate(
        """async threshold => {
          const { app, threshold: { decided } } = DiffuGenReport;
          const found = {};
          for (let row = 0; row < app.table.rows; row += 1) {
            const verdict = await decided(app, row, threshold);
            found[app.table.ids[row]] = verdict && {
              reason: verdict.reason,
              objects: verdict.objects.map(each => [each.class, each.bbox, each.area, each.score]),
            };
          }
          return found;
        }""",
        threshold,
    )

    compared = 0
    refused: dict[str, str] = {}
    found_in: dict[str, set[str]] = {}
    for line in lines_of(data):
        label: Label = label_at(samples[line["id"]], threshold, spec)
        verdict = verdict_on(label, (HEIGHT, WIDTH), spec.quality)
        reason, source = verdict.reason, line.get("source")
        if source and refused[source]:
            reason = "SourceRejected"
        elif line.get("replaced") and line["replaced"] not in found_in[line["source"]]:
            reason = "SourceWithoutLabel"
        refused[line["id"]], found_in[line["id"]] = reason, {each.class_name for each in verdict.instances}
        if not line["image"]:
            assert decided[line["id"]] is None, "nothing was drawn"
            continue
        compared += 1
        got = decided[line["id"]]
        assert got["reason"] == reason
        assert [each[:3] for each in got["objects"]] == [
            [each.class_name, list(each.bbox), each.area] for each in verdict.instances
        ]
        for each, instance in zip(got["objects"], verdict.instances, strict=True):
            assert each[3] == pytest.approx(instance.score, abs=1e-3)
    assert compared > 50


def test_moving_the_slider_redraws_counts_and_writes_the_manifest_line(page: Page, made: Published) -> None:
    lines = [line for line in lines_of(made) if line["image"]]
    opened(page, made, "view=threshold")
    page.wait_for_selector("#counts[data-at='0.4']")
    page.click("#examine-all") if page.locator("#examine-all").is_visible() else None
    page.wait_for_selector(f"#counts[data-seen='{len(lines)}']")
    # the labels were made by the rule alone, at this threshold
    assert int(page.get_attribute("#counts", "data-images") or 0) == sum(line["accepted"] for line in lines)
    painted(page)
    before = page.locator(".tiles").screenshot()

    page.focus("#threshold")
    for moved in (0.49, 0.58, 0.67):  # the slider keeps the focus while the images are drawn again
        page.keyboard.press("PageUp")
        until(page, f"document.querySelector('#counts').dataset.at == {moved}")
    painted(page)

    at = page.get_attribute("#counts", "data-at")
    assert page.locator(".threshold pre").text_content() == f"labeling:\n  attention:\n    threshold: {at}"
    assert f"threshold={at}" in address(page)
    assert page.locator(".tiles").screenshot() != before
    expect(page.locator("#counts")).to_contain_text(f"by the rule at {float(at or 0):.2f}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, made_twice_labeled: Published, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    line = next(line for line in lines_of(made_twice_labeled) if line["accepted"] and "source" in line)
    axe = Axe()
    for view in (*(f"view={view}" for view in VIEWS), f"sample={line['id']}", "status=all&v.color=red"):
        opened(page, made_twice_labeled, view)
        if view.startswith("sample"):
            page.wait_for_selector("#sample[open] canvas")

        results = axe.run(page, options={"resultTypes": ["violations"], "preload": False})

        faults = [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in results.response["violations"]]
        assert (view, faults) == (view, [])


@pytest.mark.parametrize("width", [390, 820])
def test_no_view_is_wider_than_a_small_screen(page: Page, made_twice_labeled: Published, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for view in VIEWS:
        opened(page, made_twice_labeled, f"view={view}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view


def test_printing_shows_the_images_without_the_controls(page: Page, made: Published) -> None:
    opened(page, made)
    painted(page)

    page.emulate_media(media="print")

    assert page.locator("#filters").is_hidden()
    assert page.locator(".tiles").is_visible()
    assert page.pdf()[:5] == b"%PDF-"
    assert page.locator(".tiles > li:not([data-painted])").count() == 0


def test_chunks_of_the_index_become_one_table(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "ROWS", 64)
    made = published(tmp_path, detector=True)
    lines = lines_of(made)
    assert len(list((made.folder / "report" / "index").iterdir())) == 2

    opened(page, made, "status=all&v.color=blue&class=Big+Star")

    table = "DiffuGenReport.app.table"
    assert page.evaluate(f"{table}.ids") == [line["id"] for line in lines]
    shown = page.evaluate(f"Array.from(DiffuGenReport.app.rows, row => {table}.ids[row])")
    assert shown == [
        line["id"]
        for line in lines
        if line["variables"].get("color") == "blue" and any(each["class"] == "Big Star" for each in line["instances"])
    ]
    assert page.evaluate(f"Array.from({{length: {table}.rows}}, (_, row) => {table}.promptOf(row))") == [
        line["prompt"] for line in lines
    ]
    assert page.evaluate(f"Array.from({{length: {table}.rows}}, (_, row) => {table}.reasonOf(row))") == [
        line["reason"] for line in lines
    ]
    marked = page.evaluate(f"Array.from({table}.marked.row.values.subarray(0, {table}.marked.row.length))")
    assert marked == [row for row, line in enumerate(lines) for _ in line.get("marked", ())]


def test_a_variable_of_many_values_is_shown_in_part(page: Page, made: Published) -> None:
    stage = made.order.spec.drawing_stages[0]
    columns = IndexColumns({stage.name: 0}, {"train": 0}, {name: number for number, name in enumerate(CLASSES)})
    for number in range(150):
        sample = Sample(f"{number:032x}", "a ball", number, 0, {"object": f"thing {number}"})
        reason = "TooFewInstances" if number % 2 else ""
        columns.add(
            LabeledSample(
                sample, stage.name, "train", "", "png", WIDTH, HEIGHT, Verdict((), reason), Label(sample.id, ())
            )
        )
    opened(page, made)

    page.evaluate("chunk => { DiffuGenReport.app.table.add(chunk); }", columns.content())
    page.click("#tabs >> text=Coverage")

    card = page.locator(".card", has=page.locator("h3", has_text="{object}"))
    expect(card).to_contain_text("The 100 of 153 values of which the least is published.")
    rows = card.locator("tbody tr")
    assert rows.count() == 100
    assert (rows.first.locator("td").nth(1).text_content(), rows.last.locator("td").nth(1).text_content()) == ("0", "1")


def test_it_works_from_a_server_as_diffugen_view_serves_it(page: Page, faults: list[str], made: Published) -> None:
    with serving(published_at(str(made.store.root))) as address:
        page.goto(f"{address}#view=gallery")
        page.wait_for_selector("html[data-state=ready]")
        painted(page)
        assert found(page) == sum(line["accepted"] for line in lines_of(made))
        page.locator(".tile").first.click()
        page.wait_for_selector("#sample[open] canvas")
        assert colors(page, ".tiles canvas") > 50

    here = address.removesuffix("report.html")
    assert faults, "requests that are not of files are noted"
    assert [each for each in faults if not each.startswith(here)] == [], "nothing is asked of another server"
    faults.clear()


def test_a_missing_data_file_is_named(page: Page, faults: list[str], made: Published, tmp_path: Path) -> None:
    folder = shutil.copytree(made.folder, tmp_path / "copy")
    (folder / "report" / "index" / "00000.js").unlink()
    page.goto("about:blank")
    page.goto((folder / "report.html").as_uri())

    expect(page.locator("#notice")).to_contain_text("report/index/00000.js is missing or damaged")
    assert faults == ["Failed to load resource: net::ERR_FILE_NOT_FOUND"]
    faults.clear()
