"""The committed results of the benchmarks, compared with the bounds in the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import guidance, plan, report
from benchmarks.inversion import __main__ as inversion
from benchmarks.labels import __main__ as labels
from benchmarks.publish import __main__ as publishing
from benchmarks.scale import reporting
from benchmarks.throughput import __main__ as throughput

from diffugen_api.v1alpha1.kinds.base import GUIDANCE_SCALE

ROOT = Path(__file__).parents[2]


def committed(file: Path) -> dict[str, Any]:
    assert file == ROOT / "benchmarks" / "results" / file.name
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize("figure", labels.BOUNDS)
def test_the_quality_of_labels_is_within_the_bounds_of_the_benchmark(figure: str) -> None:
    assert labels.holds(committed(labels.RESULTS), figure)


@pytest.mark.parametrize(
    ("row", "raw", "snapped"),
    [
        ("attention, threshold 0.4", "attention_miou", "attention_snapped_miou"),
        ("attention, `threshold: auto`", "attention_auto_miou", "attention_auto_snapped_miou"),
        ("attention, `fragmentFraction: 0.1`", "attention_fragments_01_raw_miou", "attention_fragments_01_miou"),
        ("attention, `fragmentFraction: 0.2`", "attention_fragments_02_raw_miou", "attention_fragments_02_miou"),
        ("attention, `refine: false`", "attention_unrefined_miou", ""),
        ("attention, `headWeights: agreement`", "attention_agreement_miou", ""),
        ("attention, `rescale: true`", "attention_rescaled_miou", ""),
        ("`capture: inline`, `refine: false` (DAAM)", "inline_miou", "inline_snapped_miou"),
        (
            "as LabelDiffusion makes them: DAAM, Otsu, erosion and dilation",
            "labeldiffusion_miou",
            "",
        ),
        ("the detector `builtin://shapes-segmenter`", "detector_miou", ""),
    ],
)
def test_the_guides_table_of_labels_has_the_measured_figures(row: str, raw: str, snapped: str) -> None:
    found = committed(labels.RESULTS)
    cells = [f"{found[key]:.2f}" if key else "" for key in (raw, snapped)]

    line = f"| {row} | {' | '.join(cells)}".rstrip()

    assert any(each.startswith(line) for each in (ROOT / "docs" / "labels.md").read_text().splitlines()), line


@pytest.mark.parametrize("figure", inversion.BOUNDS)
def test_the_quality_of_a_trained_token_is_within_the_bounds_of_the_benchmark(figure: str) -> None:
    found = committed(inversion.RESULTS)

    assert inversion.holds(found, figure)
    assert found["same_vectors_after_resume"]


@pytest.mark.parametrize("figure", reporting.BOUNDS)
def test_the_cost_of_the_operator_is_within_the_bounds_of_the_benchmark(figure: str) -> None:
    found = committed(reporting.RESULTS)

    assert found[figure] <= reporting.BOUNDS[figure]
    assert not [size["fault"] for size in found["sizes"] if size["fault"]]


def test_the_costs_of_labels_and_of_the_stage_are_within_the_bounds_of_the_benchmark() -> None:
    found = committed(throughput.RESULTS)

    for case in found["cases"]:
        asked = throughput.bounds_of(case)
        assert len(asked) >= 2
        assert [figure for figure, bound in asked.items() if not bound["holds"]] == []
    summary = throughput.summary_of(found["cases"])
    assert {figure: found[figure] for figure in summary} == summary, "the summary is that of the cases"


def test_the_report_is_usable_within_the_bounds_of_time_and_memory() -> None:
    sizes = committed(report.RESULTS)["sizes"]

    assert [each["samples"] for each in sizes] == list(report.SIZES)
    assert [each for each in sizes if not report.holds(each)] == []


def test_planning_a_million_samples_is_within_the_bounds_of_time_and_memory() -> None:
    cases = committed(plan.RESULTS)["cases"]

    assert [each["samples"] for each in cases] == [1_000_000] * 3
    assert max(each["seconds"] for each in cases) <= plan.SECONDS
    assert max(each["megabytes"] for each in cases) <= plan.MEGABYTES


def test_planning_from_a_file_of_a_million_prompts_is_within_the_bounds_of_time_and_memory() -> None:
    found = committed(plan.RESULTS)["file"]

    assert (found["samples"], found["draw"]) == (1_000_000, 1_000_000)
    assert found["within"]
    assert found["cpu_seconds"] <= plan.SECONDS
    assert found["megabytes"] <= plan.MEGABYTES


def test_the_default_guidance_is_measured_to_be_better_than_that_of_diffusers() -> None:
    found = committed(guidance.RESULTS)
    scales = {each["guidance"]: each for each in found["scales"]}

    assert list(scales) == list(guidance.SCALES)
    assert all(len(each["scores"]) == found["seeds"] * found["trainings"] for each in scales.values())
    assert found["best"] == guidance.best_of(found["scales"])
    ours, theirs = scales[GUIDANCE_SCALE], scales[7.5]
    assert ours["downstream_miou"] > theirs["downstream_miou"] + theirs["spread"]
    assert scales[found["best"]]["downstream_miou"] - ours["downstream_miou"] <= ours["spread"]


def test_two_thousand_classes_take_no_more_than_a_few_times_as_long_to_plan_as_twenty() -> None:
    found = committed(plan.RESULTS)["classes"]

    assert [each["case"] for each in found["cases"]] == [f"{classes:,} classes" for classes in plan.CLASSES]
    assert all(each["samples"] == plan.SAMPLES_OF_CLASSES and each["within"] for each in found["cases"])
    assert found["times"] <= found["bound"] == plan.MOST_TIMES


def test_publishing_is_within_the_bounds_of_the_benchmark() -> None:
    found = committed(publishing.RESULTS)

    assert [size["samples"] for size in found["sizes"]] == list(publishing.SIZES[: len(found["sizes"])])
    coco = found["coco"]
    peer = coco["peer_reading_seconds"] + coco["peer_seconds"]
    assert found["speedup_over_peer"] == round(peer / coco["seconds"], 2)
    assert found["speedup_over_export"] == round(coco["peer_seconds"] / coco["seconds"], 2)
    assert publishing.bounds_of(found) == found["bounds"]
    assert [bound for bound, holds in found["bounds"].items() if not holds] == []
