"""What becomes a prompt of a chat model's reply."""

import pytest

from diffugen_api.words import Vocabulary
from diffugen_generator.prompt_writing.replies import NO_CLASS, UNUSABLE, judged, prompt_in

CARS = Vocabulary({"car": ["car", "automobile"], "person": ["person"]})


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [
        ("A car in snow.", "A car in snow."),
        ('"A car in snow."', "A car in snow."),
        ("**Caption:** “A car  in\tsnow.”\n\nI hope this helps!", "A car in snow."),
        ("1. A car in snow.\n2. A car in rain.", "A car in snow."),
        ("- # a car", "a car"),
        ("<think>The user wants\na car.</think>\n\nA car in snow.", "A car in snow."),
        ("<think>It never ends", ""),
        ("The user wants\na car.\n</think>\n\nA car in snow.", "A car in snow."),
        ("Photo 3: 2 cars and a car", "2 cars and a car"),
        ('Here is a caption for a photo of a car:\n\n"A car in snow."', "A car in snow."),
        ("Sure! Here's one caption: A car: red.", "A car: red."),
        ("**Here are the captions:**\n1. A car in snow.", "A car in snow."),
        ("Here is a car in snow.", "Here is a car in snow."),
        ("Surely a car.", "Surely a car."),
        ("\n \n", ""),
    ],
)
def test_the_first_line_without_marks_is_taken(reply: str, prompt: str) -> None:
    assert prompt_in(reply) == prompt


@pytest.mark.parametrize(
    ("reply", "asked", "fault"),
    [
        ("A car in snow.", ["car"], ""),
        ("An Automobile in snow.", ["car"], ""),
        ("A car and a person.", ["car", "person"], ""),
        ("A car.", ["car", "person"], NO_CLASS),
        ("A carpet in a scar.", ["car"], NO_CLASS),
        ("Two cars.", ["car"], NO_CLASS),
        ("A car++ in snow.", ["car"], UNUSABLE),
        ("A (car:1.3) in snow.", ["car"], UNUSABLE),
        ("A car <lora:x:1>", ["car"], UNUSABLE),
        ("A car\x07", ["car"], UNUSABLE),
        ("A car " + "in snow " * 100, ["car"], UNUSABLE),
    ],
)
def test_a_prompt_names_what_was_asked_for_and_is_plain(reply: str, asked: list[str], fault: str) -> None:
    assert judged(reply, asked, CARS).fault == fault
