"""Near duplicates: the fast search finds what a comparison of all pairs finds."""

import random

import pytest

from diffugen_generator.prompt_writing.near_duplicates import NearDuplicates, jaccard, words_of


def test_a_text_that_differs_in_few_words_is_a_near_duplicate() -> None:
    found = NearDuplicates()

    assert found.add("A red car is parked on a city street at night.")
    assert not found.add("a red car, parked in the city street at NIGHT")
    assert found.add("A red car is parked on a beach at noon.")


def test_texts_of_common_words_alone_are_equal() -> None:
    found = NearDuplicates()

    assert found.add("the")
    assert not found.add("of a")


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_the_search_equals_a_comparison_of_all_pairs(threshold: float) -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.sample("abcdefghijklmn", rng.randint(1, 9))) for _ in range(600)]
    kept: list[frozenset[str]] = []
    expected = []
    for text in texts:
        words = words_of(text)
        new = all(jaccard(words, other) < threshold for other in kept)
        kept += [words] if new else []
        expected.append(new)

    found = NearDuplicates(threshold)

    assert [found.add(text) for text in texts] == expected
    assert 0 < sum(expected) < len(texts)
