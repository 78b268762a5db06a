"""The hint follows the reasons for which images are rejected."""

from __future__ import annotations

import pytest

from diffugen_generator.labeling.side_model_registry import SIDE_MODELS
from diffugen_generator.quality import sources, verdicts
from diffugen_generator.quality.hints import hints


@pytest.mark.parametrize(
    ("reasons", "dropped", "objects", "expected"),
    [
        ({"BlankPicture": 4}, {}, 0, ["one color", "run.dtype"]),
        ({"Duplicate": 4}, {}, 3, ["samplesPerPrompt", "duplicates.maxDistance"]),
        ({"BelowClipScore": 4}, {}, 3, ["clipScore.min"]),
        ({"Unsafe": 4}, {}, 3, ["safety.max"]),
        ({"SourceRejected": 4}, {}, 0, ["the source's images"]),
        ({"SourceWithoutLabel": 4}, {}, 0, ["that is replaced"]),
        ({"TooFewInstances": 4}, {}, 0, ["no object was found"]),
        ({"TooFewInstances": 4}, {}, 2, ["lower quality.minInstances"]),
        (
            {"TooFewInstances": 4},
            {"BelowMinAreaFraction": 1, "AboveMaxAreaFraction": 3, "WithinMinBorderDistance": 2},
            0,
            ["maxAreaFraction; lower quality.minBorderDistance; lower quality.minAreaFraction; lower quality.minInst"],
        ),
        ({"BelowClipScore": 1, "Duplicate": 4}, {}, 3, ["maxDistance; lower quality.clipScore.min"]),
    ],
)
def test_the_fix_is_for_the_reason(
    reasons: dict[str, int], dropped: dict[str, int], objects: int, expected: list[str]
) -> None:
    found = hints(reasons, dropped, objects)

    assert all(part in found for part in expected)
    assert ("minInstances" in found) is ("TooFewInstances" in reasons)


def test_every_reason_has_a_fix() -> None:
    images = [
        *(verdicts.TOO_FEW, verdicts.BLANK_IMAGE, verdicts.DUPLICATE, sources.REJECTED, sources.UNLABELED),
        *(kind.reason for kind in SIDE_MODELS.values() if kind.reason),
    ]

    assert all(hints({reason: 1}, {}, 0) for reason in images)
    for reason in (verdicts.TOO_SMALL, verdicts.TOO_LARGE, verdicts.AT_BORDER):
        assert hints({verdicts.TOO_FEW: 1}, {reason: 1}, 0) != hints({verdicts.TOO_FEW: 1}, {}, 1)
