"""Classes in prompts: which classes a prompt names, where, and by which tokens."""

from __future__ import annotations

import pytest

from diffugen_api.words import Vocabulary, mentions
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.tokens import PromptTokenizer
from diffugen_generator.labeling.words import tokens_of

VOCABULARY = Vocabulary(
    {"car": ["car", "automobile"], "sports car": ["sports car"], "traffic light": ["traffic light"]}, ["road", "light"]
)


def named(prompt: str) -> list[tuple[str, str]]:
    return [(mention.name, prompt[mention.begin : mention.end]) for mention in mentions(prompt, VOCABULARY)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a Car on the road", [("car", "Car"), ("road", "road")]),
        ("an automobile, and a car.", [("car", "automobile"), ("car", "car")]),
        ("a sports car", [("sports car", "sports car")]),
        ("a traffic \n light, a light", [("traffic light", "traffic \n light"), ("light", "light")]),
        ("cars, a carpet, scar, car_1", []),
        ("(car:1.4) car++", [("car", "car"), ("car", "car")]),
        ("", []),
    ],
)
def test_whole_words_match_in_any_case_and_the_longer_term_first(prompt: str, expected: list[tuple[str, str]]) -> None:
    assert named(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("un caf\u00e9 rouge, CAF\u00c9", ["caf\u00e9", "caf\u00e9"]),
        ("caf\u00e9s", []),
        ("\u96ea\u306e\u4e0a\u306e\u7403\u3068\u661f", ["\u7403"]),
        ("\ubd89\uc740 \uacf5\uc774 \uc788\ub2e4", ["\uacf5"]),
        ("a traffic light/red one", ["traffic light/red"]),
        ("\u043a\u0440\u0430\u0441\u043d\u044b\u0439 \u041c\u042f\u0427", ["\u043c\u044f\u0447"]),
        ("\u043c\u044f\u0447\u0438", []),
    ],
)
def test_names_of_any_script_are_found(prompt: str, names: list[str]) -> None:
    words = ["caf\u00e9", "\u7403", "\uacf5", "traffic light/red", "\u043c\u044f\u0447"]

    assert [each.name for each in mentions(prompt, Vocabulary({word: [word] for word in words}))] == names


def test_a_term_of_two_classes_belongs_to_the_first_class() -> None:
    vocabulary = Vocabulary({"car": ["car", "vehicle"], "truck": ["truck", "vehicle"]}, ["vehicle"])

    assert [(m.name, m.background) for m in mentions("a vehicle", vocabulary)] == [("car", False)]


def test_a_term_of_many_pieces_has_all_their_tokens(tiny_model: ModelFolder) -> None:
    prompt = "a red Traffic light and a cat"
    spans = PromptTokenizer(tiny_model).read(prompt).spans
    vocabulary = Vocabulary({"traffic light": ["traffic light"], "cat": ["cat"]})

    # start, a, red, traffic, light, and, a, c, a, t
    assert [tokens_of(m, spans) for m in mentions(prompt, vocabulary)] == [[3, 4], [7, 8, 9]]
