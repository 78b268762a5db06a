import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffugen_api.templates import Template, TemplateError

names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,8}\Z")


def test_fields_are_filled_in_at_every_position() -> None:
    template = Template.parse("{a} ball and {b}{a}")

    assert template.fields == ("a", "b", "a")
    assert template.render({"a": "red", "b": "blue"}) == "red ball and bluered"


def test_doubled_braces_are_braces() -> None:
    assert Template.parse("{{not a field}} {x}").render({"x": "1"}) == "{not a field} 1"


@given(st.lists(st.tuples(st.text(), names)), st.text())
def test_any_text_with_doubled_braces_renders_as_itself(pieces: list[tuple[str, str]], tail: str) -> None:
    def literal(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    source = "".join(f"{literal(text)}{{{name}}}" for text, name in pieces) + literal(tail)
    values = {name: f"<{name}>" for _, name in pieces}

    expected = "".join(f"{text}<{name}>" for text, name in pieces) + tail
    assert Template.parse(source).render(values) == expected


@pytest.mark.parametrize(
    "text",
    ["{x.__class__}", "{x[0]}", "{x!r}", "{x:>10}", "{}", "{0}", "{x y}", "a { b", "a } b", "{x", "{{x}"],
)
def test_a_field_that_is_not_a_plain_name_is_refused(text: str) -> None:
    with pytest.raises(TemplateError, match="plain name|lone"):
        Template.parse(text)
