"""Refinement: maps spread within their objects, and what words tell apart stays apart."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch.nn import functional

from diffugen_generator.labeling.refinement import ranged, refined
from diffugen_generator.labeling.word_maps import rivals_of
from diffugen_generator.labeling.words import Vocabulary, mentions

FIRST, SECOND, GROUND = 0, 1, 2
SCENE = torch.tensor([[FIRST] * 2 + [GROUND] * 2 + [SECOND] * 2 + [GROUND] * 2] * 8)
"""What lies in each of 8 x 8 cells."""
BOTH_WAYS = torch.tensor([[False, True], [True, False]])


def maps_of_two_words() -> torch.Tensor:
    """Maps [1, 2, 8, 8]: each word's own object, unclearly."""
    own = torch.stack([SCENE == FIRST, SCENE == SECOND]).float()
    return (own + 0.5 * torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1)))[None]


def attention_by(kinds: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Self-attention of one layer in which cells of one kind attend to each other alone."""
    alike = 8 * functional.one_hot(kinds.flatten()).float()[None, None]  # [1, 1, 64, kinds]
    return [(alike, alike)]


def test_self_attention_that_sees_two_objects_as_one_refines_nothing() -> None:
    maps = maps_of_two_words()
    as_one = attention_by((SCENE == GROUND).long())

    both = refined(maps, as_one)
    assert both[0, 0][SCENE == SECOND].min() > 0.9, "the first word's map lies on the second's object too"

    assert torch.equal(refined(maps, as_one, BOTH_WAYS[None]), ranged(maps))


def test_self_attention_that_tells_objects_apart_refines() -> None:
    found = refined(maps_of_two_words(), attention_by(SCENE), BOTH_WAYS[None])

    clear = torch.stack([SCENE == FIRST, SCENE == SECOND]).float()[None]
    torch.testing.assert_close(found, clear, atol=0.15, rtol=0)


def test_only_rivals_are_kept_apart_picture_by_picture() -> None:
    maps = maps_of_two_words().repeat(2, 1, 1, 1)
    ((alike, _),) = attention_by((SCENE == GROUND).long())
    as_one = [(alike.repeat(2, 1, 1, 1), alike.repeat(2, 1, 1, 1))]

    found = refined(maps, as_one, torch.stack([BOTH_WAYS, torch.zeros_like(BOTH_WAYS)]))

    assert torch.equal(found[0], ranged(maps)[0])
    torch.testing.assert_close(found[1], refined(maps, as_one)[1])


def test_a_things_other_names_are_no_rivals() -> None:
    vocabulary = Vocabulary({"ball": ("ball", "sphere"), "star": ("star",)}, ("snow",))
    named = [mentions("a ball, a sphere and a star on snow", vocabulary), mentions("a star", vocabulary)]

    found = rivals_of(named)

    ball, sphere, star, snow = range(4)
    assert found.shape == (2, 4, 4)
    assert torch.equal(found[0], found[0].T)
    assert not found[0, ball, sphere]
    assert found[0, ball, star]
    assert found[0, sphere, star]
    assert found[0, star, snow]
    assert not found[1].any()


def test_the_matrix_of_all_cells_is_never_made() -> None:
    # 4096 x 4096 cells of 8 heads would be half a gigabyte in fp32
    code = (
        "import resource, torch; from diffugen_generator.labeling.refinement import refined;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "small, large = (torch.randn(1, 8, side * side, 40) for side in (16, 64));"
        "refined(torch.rand(1, 3, 16, 16), [(small, small)]); before = peak();"
        "refined(torch.rand(1, 3, 64, 64), [(large, large)]); print(peak() - before)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert int(done.stdout) < 150_000, "kB"


def test_a_flat_map_ranges_to_nothing() -> None:
    assert ranged(torch.full((1, 1, 4, 4), 0.3)).abs().max() == 0
