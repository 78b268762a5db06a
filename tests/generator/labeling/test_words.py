"""Classes in prompts: which classes a prompt names, where, and by which tokens."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

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


def reference(prompt: str, classes: Mapping[str, Sequence[str]], background: Sequence[str]) -> list[tuple[str, int]]:
    """Search a prompt for every term, the longer ones first, as the definition says."""
    terms = [(word, name) for name, words in classes.items() for word in words] + [(word, word) for word in background]
    found: list[tuple[int, int, str]] = []
    for word, name in sorted(terms, key=lambda term: -len(term[0])):
        pieces = r"\s+".join(re.escape(piece) for piece in word.split())
        for match in re.finditer(rf"(?<!\w){pieces}(?!\w)", prompt, re.IGNORECASE):
            if all(match.end() <= begin or end <= match.start() for begin, end, _ in found):
                found.append((*match.span(), name))
    return [(name, begin) for begin, _, name in sorted(found)]


@pytest.mark.parametrize("seed", range(30))
def test_the_terms_of_a_prompt_are_those_of_a_search_for_every_term(seed: int) -> None:
    chance = random.Random(seed)

    def text(most: int) -> str:
        return " ".join("".join(chance.choices("aAbıİſsKkß-/é1", k=chance.randint(1, 6))) for _ in range(most))

    classes = {f"class {n}": [text(chance.randint(1, 2)) for _ in range(chance.randint(1, 3))] for n in range(80)}
    background = [text(1) for _ in range(10)]
    further = {f"class {chance.randrange(90)}": [text(1), text(2)] for _ in range(4)}
    called = {name: (*further.get(name, ()), *words) for name, words in classes.items()}
    words = [word for some in (*classes.values(), *further.values(), background) for word in some]
    vocabulary = Vocabulary(classes, background)

    for _ in range(30):
        some = (*chance.choices(words, k=4), text(1), chance.choice(words).upper())
        prompt = chance.choice([" ", ", ", "\n"]).join(some)
        found = [(each.name, each.begin) for each in mentions(prompt, vocabulary)]
        assert found == reference(prompt, classes, background)
        found = [(each.name, each.begin) for each in mentions(prompt, vocabulary.called(further))]
        assert found == reference(prompt, called, background)


def test_a_prompt_is_compared_with_few_of_thousands_of_terms() -> None:
    classes = {f"{begin}{end}": [f"{begin}{end}"] for begin in range(100, 300) for end in "abcdefghij"}

    assert len(Vocabulary(classes).terms_of("a red 123c and a 299J on sand")) == 2


def test_an_empty_word_names_nothing() -> None:
    assert mentions("a ball", Vocabulary({"ball": ["ball"]}).called({"ball": ("",)}))[0].name == "ball"
    assert mentions("a ball", Vocabulary({"ball": ["\x1c", "ball"]}, ["\x1c"]))[0].name == "ball"


def test_a_term_of_many_pieces_has_all_their_tokens(tiny_model: ModelFolder) -> None:
    prompt = "a red Traffic light and a cat"
    spans = PromptTokenizer(tiny_model).read(prompt).spans
    vocabulary = Vocabulary({"traffic light": ["traffic light"], "cat": ["cat"]})

    # start, a, red, traffic, light, and, a, c, a, t
    assert [tokens_of(m, spans) for m in mentions(prompt, vocabulary)] == [[3, 4], [7, 8, 9]]
