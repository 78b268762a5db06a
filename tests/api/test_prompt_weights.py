"""Prompt weights: two syntaxes, one form."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffugen_api.plan import Expansion, SpecError, revision_of, stage_recipe
from diffugen_api.prompt_weights import Piece, Syntax, WeightError, plain, read
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from tests.api.specs import a_spec, spec_data, with_prompts


def pieces(text: str, syntax: Syntax = "auto") -> list[tuple[str, float]]:
    found = read(text, syntax)
    return [(found, 1.0)] if isinstance(found, str) else [(each, round(weight, 4)) for each, weight in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a ball++ on snow", [("a ", 1.0), ("ball", 1.21), (" on snow", 1.0)]),
        ("a red-- ball, big+", [("a ", 1.0), ("red", 0.81), (" ball, ", 1.0), ("big", 1.1)]),
        ("(a red ball)1.3, snow", [("a red ball", 1.3), (", snow", 1.0)]),
        ("(a red ball)++ (here)", [("a red ball", 1.21), (" here", 1.0)]),
        ("a (b (c)1.2 d)1.5 e", [("a ", 1.0), ("b ", 1.5), ("c", 1.8), (" d", 1.5), (" e", 1.0)]),
        ('"a big ball"- on snow', [("a big ball", 0.9), (" on snow", 1.0)]),
        ("sky-blue- ball", [("sky-blue", 0.9), (" ball", 1.0)]),
        ("(gone)0 ball", [("gone", 0.0), (" ball", 1.0)]),
        ("(red)(ball)1.2", [("red", 1.0), (" ball", 1.2)]),
        (r"c\+\+++ and \(so\)", [("c++", 1.21), (" and (so)", 1.0)]),
    ],
)
def test_compel(text: str, expected: list[tuple[str, float]]) -> None:
    assert pieces(text) == pieces(text, "compel") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (red ball:1.3) on snow", [("a ", 1.0), ("red ball", 1.3), (" on snow", 1.0)]),
        ("((ball)), [snow]", [("ball", 1.21), (", ", 1.0), ("snow", 0.9091)]),
        ("(a (red) ball:1.5)", [("a ", 1.5), ("red", 1.65), (" ball", 1.5)]),
        (r"(a \(red\) ball:.5), at 10\:30", [("a (red) ball", 0.5), (", at 10:30", 1.0)]),
        ("(note: this) is (it : 2)", [("note: this", 1.1), (" is ", 1.0), ("it ", 2.0)]),
    ],
)
def test_a1111(text: str, expected: list[tuple[str, float]]) -> None:
    assert pieces(text) == pieces(text, "a1111") == expected


@pytest.mark.parametrize(
    "text",
    [
        "a red ball",
        "a photo-realistic ball - 2+2",
        "a ball (red), and a star (blue)",
        "x) and (y",
        "1.5 m, e-mail, -c, + d -- e",
        'he said "no"',
    ],
)
def test_text_without_marks_is_unchanged(text: str) -> None:
    assert read(text) is text


def test_the_syntax_none_parses_nothing() -> None:
    assert read(r"(a ball:1.3)++ \(", "none") == r"(a ball:1.3)++ \("


def test_an_explicit_syntax_overrides_what_auto_would_choose() -> None:
    assert pieces("(a ball)++ [x]", "compel") == [("a ball", 1.21), (" [x]", 1.0)]
    assert pieces("(ball) c++", "a1111") == [("ball", 1.1), (" c++", 1.0)]


def test_escaped_plus_signs_are_plain_text() -> None:
    assert pieces(r"a c\+\+ book") == [("a c++ book", 1.0)]
    assert pieces("a c++ book") == [("a ", 1.0), ("c", 1.21), (" book", 1.0)]


@given(st.text())
def test_escaped_text_is_unchanged(text: str) -> None:
    escaped = "".join(f"\\{c}" if c in '\\()[]+-:"' else c for c in text)

    assert plain(read(escaped)) == text


@given(st.text(alphabet='ab ()[]:+-1.\\"|,'))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for syntax in ("auto", "compel", "a1111"):
        try:
            found = read(text, syntax)
        except WeightError:
            continue
        assert isinstance(found, str) or all(0 <= piece.weight <= 4 for piece in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ball++ (star:1.2)", "compel .* and of A1111 .* use one of them"),
        ("(a ball++ on snow", r"'\(' at character 1 is not closed; close it, or write \\\("),
        ("((ball)", "not closed"),
        ("(a:1.2) b)", r"'\)' at character 10 closes nothing"),
        ("(a ball:1,4)", "'1,4' is not a weight; write a number such as 1.3"),
        ("(at 10:30)", "weight 30 of 'at 10' is not between 0 and 4"),
        ("(ball:-1)", "weight -1"),
        ("[ball:star:0.5]", "not supported"),
        ("[ball|star]", "not supported"),
        ('("a", "b").blend(1, 1)++', r"\.blend\(\) is not supported"),
    ],
)
def test_a_syntax_error_names_the_fix(text: str, message: str) -> None:
    with pytest.raises(WeightError, match=message):
        read(text)


@pytest.mark.parametrize("syntax", ["auto", "compel", "a1111"])
@pytest.mark.parametrize(
    "text",
    [
        "(a:" + "1" * 60_000,
        "(a)" + "1." * 30_000 + " b++",
        "a" + "+" * 60_000 + "x b++",
        '"a' * 30_000 + "b++",
        "(a: " + " " * 60_000 + "x",
        "a++ " * 15_000,
        "(ball:1.2) " * 5_000,
        "\\(" * 30_000 + " b++",
    ],
    ids=["digits", "points", "signs", "quotes", "spaces", "words", "groups", "escapes"],
)
def test_a_long_text_is_read_in_linear_time(text: str, syntax: Syntax) -> None:
    with suppress(WeightError):
        read(text, syntax)  # with quadratic time, this takes minutes


@pytest.mark.parametrize("sign", ["(", "["])
def test_groups_are_nested_at_most_64_deep(sign: str) -> None:
    close = ")" if sign == "(" else "]"
    balanced = "(" * 32 + "[" * 32 + "ball" + "]" * 32 + ")" * 32

    assert pieces(balanced, "a1111") == [("ball", 1.0)]
    with pytest.raises(WeightError, match=rf"the '\{sign}' at character 65 is within 64 others; nest fewer"):
        read(sign * 30_000 + "ball" + close * 30_000, "a1111")


def test_a_weight_within_an_escaped_sign_is_read_as_before() -> None:
    assert pieces(r"c\++ d") == [("c+", 1.1), (" d", 1.0)]
    assert pieces(r"c\+++ d") == [("c+", 1.21), (" d", 1.0)]


def recipes(spec: LabeledDatasetSpec) -> dict[str, str]:
    return {s.prompt: s.id for s in Expansion(spec).samples_of(stage_recipe(spec, spec.stages[0], "d" * 64))}


def test_prompts_without_weights_keep_their_ids_in_every_syntax() -> None:
    assert recipes(with_prompts(syntax="compel")) == recipes(with_prompts(syntax="none")) == recipes(a_spec())
    assert revision_of(with_prompts(syntax="auto")) == revision_of(a_spec()) != revision_of(with_prompts(syntax="none"))


def test_a_weighted_prompt_and_the_same_plain_text_have_different_recipes() -> None:
    templates = ["a {object}", "a {object}++"]
    weighted, literal = (recipes(with_prompts(templates=templates, syntax=each)) for each in ("auto", "none"))

    assert weighted["a ball"] == literal["a ball"]
    assert weighted["a ball++"] != literal["a ball++"]
    assert recipes(with_prompts(templates=templates, syntax="compel")) == weighted


def test_the_weighted_pieces_of_a_sample_are_kept_in_a_shard() -> None:
    spec = with_prompts(templates=["a {object}++"], negative="(blur:1.3)")
    recipe = stage_recipe(spec, spec.stages[0], "d" * 64)
    sample = next(Expansion(spec).samples_of(recipe))

    assert sample.text == (Piece("a ", 1.0), Piece("ball", 1.21))
    assert type(sample).from_row(sample.row()) == sample
    assert recipe.drawing["negativeWeights"] == [["blur", 1.3]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"templates": ["a {object}", "(a {object}:1,3)"]},
            r"^spec\.prompts\.templates\[1\]: '\(a ball:1,3\)': '1,3' is no",
        ),
        (
            {"templates": ["{object} {color}"], "variables": {"object": ["ball"], "color": ["red", "(red:9)"]}},
            "weight 9",
        ),
        ({"negative": "(blur:x1)"}, r"^spec\.prompts\.negative: .*'x1' is not a weight"),
    ],
)
def test_a_spec_whose_weights_do_not_parse_names_the_field(change: dict[str, object], message: str) -> None:
    spec = a_spec(prompts={**spec_data()["prompts"], **change, "syntax": "a1111"})

    with pytest.raises(SpecError, match=message) as caught:
        Expansion(spec).check_weights()

    assert caught.value.reason == "InvalidWeights"


LONG = {"object": ["ball", "star"], "color": ["red", "x" * 490]}


def test_a_prompt_with_its_values_has_at_most_16_kb() -> None:
    templates = ["a {object}", "{object} " + "{color} " * 34]

    with pytest.raises(
        SpecError, match=r"^spec.prompts.templates\[1\]: a prompt has 16,\d{3} bytes with .* 16,384; "
    ) as e:
        Expansion(with_prompts(templates=templates, variables=LONG)).check_weights()

    assert e.value.reason == "PromptTooLong"
    Expansion(with_prompts(templates=templates, variables=LONG, maxBytes=20_000)).check_weights()


def test_the_longest_values_are_tried_together() -> None:
    values = {"one": ["a", "é" * 200], "two": ["b", "x" * 300]}

    with pytest.raises(SpecError, match="a prompt has 701 bytes"):
        Expansion(with_prompts(templates=["{one} {two}"], variables=values, maxBytes=600)).check_weights()


def test_zipped_values_are_tried_row_by_row() -> None:
    values = {"one": ["a", "é" * 200], "two": ["x" * 300, "b"]}
    zipped = with_prompts(templates=["{one} {two}"], variables=values, combine="zip", maxBytes=402)

    Expansion(zipped).check_weights()
    with pytest.raises(SpecError, match="a prompt has 402 bytes"):
        Expansion(
            with_prompts(templates=["{one} {two}"], variables=values, combine="zip", maxBytes=401)
        ).check_weights()


def test_the_negative_prompt_and_derived_prompts_are_bounded() -> None:
    with pytest.raises(SpecError, match=r"^spec.prompts.negative: a prompt has 300 bytes"):
        Expansion(with_prompts(negative="x" * 300, maxBytes=200)).check_weights()
    changed = {"name": "more", "img2img": {"from": "base", "variables": {"color": ["x" * 300]}}}
    stages = [{"name": "base", "txt2img": {"model": "m"}}, changed]
    with pytest.raises(SpecError, match=r"^spec.stages\[1\].img2img.variables: a prompt has 307 bytes"):
        _ = Expansion(a_spec(stages=stages, prompts={**spec_data()["prompts"], "maxBytes": 200})).families


def test_the_bound_of_prompts_is_in_no_address() -> None:
    assert revision_of(with_prompts(maxBytes=20_000)) == revision_of(a_spec())
    assert recipes(with_prompts(maxBytes=20_000)) == recipes(a_spec())


def test_messages_show_the_beginning_of_a_long_prompt() -> None:
    with pytest.raises(SpecError) as refused:
        Expansion(with_prompts(templates=["(" + "a" * 1500 + "++"])).check_weights()

    assert len(str(refused.value)) < 500
