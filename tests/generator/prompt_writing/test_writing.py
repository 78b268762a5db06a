"""Writing prompts, with given replies, and with those of a real chat model, which are recorded."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from diffugen_api.errors import SpecError
from diffugen_generator.failures import Interrupted
from diffugen_generator.prompt_writing.replies import NEAR_DUPLICATE, NO_CLASS
from diffugen_generator.prompt_writing.writing import Wanted, Written, write_prompts

CLASSES = {"car": ("car", "automobile"), "person": ("person",)}
GIVEN = (
    "A car waits at a red light in the rain.",
    "Two people talk.",
    "A car waits at a red light, in the rain",
    '"A person reads a newspaper on a bench."',
    "A person with an umbrella crosses a wet street.",
    "An automobile stands in front of a bakery at dawn.",
)
"""Replies to requests for a car, a person, a car, a person, and then again for the second and the third."""


class Replies:
    """Replies with given texts, one after the other."""

    def __init__(self, replies: Sequence[str] | Callable[[str, int], str]) -> None:
        self._replies = replies
        self.requests: list[str] = []
        self.seeds: list[int] = []

    def replies(self, requests: Sequence[str], *, seed: int) -> list[str]:
        self.seeds.append(seed)
        found = []
        for request in requests:
            number = len(self.requests)
            self.requests.append(request)
            replies = self._replies
            found.append(replies(request, number) if callable(replies) else replies[number % len(replies)])
        return found


def obedient(request: str, number: int) -> str:
    """A caption with the asked words, different each time."""
    words = re.findall('"(.+?)"', request)
    return f"A {' and a '.join(words)} at house {number} in town {number}"


def write(model: Replies, **settings: object) -> Written:
    return write_prompts(Wanted(CLASSES, **{"count": 4, "batch": 2, **settings}), model)  # type: ignore[arg-type]


def test_replies_that_name_no_class_or_repeat_another_are_asked_for_again() -> None:
    found = write(Replies(GIVEN))

    assert found.prompts == [
        "A car waits at a red light in the rain.",
        "A person reads a newspaper on a bench.",
        "A person with an umbrella crosses a wet street.",
        "An automobile stands in front of a bakery at dawn.",
    ]
    assert found.replies == 6
    assert found.rejected == {NO_CLASS: 1, NEAR_DUPLICATE: 1}


def test_the_recorded_replies_of_a_real_model_become_prompts() -> None:
    recorded = json.loads((Path(__file__).parent / "smollm2.json").read_text())
    model = Replies(recorded["replies"])

    found = write(model, count=8, batch=8, together=2, seed=1, about="street scenes seen by a dash camera")

    assert len(model.requests) == len(recorded["replies"])
    assert found.prompts == recorded["prompts"]
    assert dict(found.classes) == recorded["classes"]
    assert dict(found.rejected) == recorded["rejected"]
    words = re.compile(r"\b(car|automobile|person)s?\b", re.IGNORECASE)
    assert all(words.search(prompt) for prompt in found.prompts)
    assert all("\n" not in prompt and not prompt.startswith('"') for prompt in found.prompts)


def test_every_class_has_its_share() -> None:
    found = write(Replies(obedient), count=7)

    assert len(found.prompts) == 7
    assert found.classes == {"car": 4, "person": 3}
    assert not found.rejected


def test_a_prompt_can_be_asked_to_name_several_classes() -> None:
    model = Replies(obedient)

    found = write(model, count=40, together=2)

    both = [prompt for prompt in found.prompts if "car" in prompt and "person" in prompt]
    assert 5 < len(both) < 35
    assert sum(found.classes.values()) == 40 + len(both)
    assert any('exact words "car" and "person"' in request for request in model.requests)


def test_the_requests_depend_on_the_seed_alone() -> None:
    first, again, other = Replies(obedient), Replies(obedient), Replies(obedient)

    assert write(first, count=20, seed=1).prompts == write(again, count=20, seed=1).prompts
    write(other, count=20, seed=2)

    assert (first.requests, first.seeds) == (again.requests, again.seeds)
    assert first.requests != other.requests
    assert set(first.seeds).isdisjoint(other.seeds)
    assert len(set(first.requests)) > 10, "the scenes vary"


def test_the_request_says_what_the_photos_are_about() -> None:
    model = Replies(obedient)

    write(model, about="parking lots seen from a drone")

    assert all("The photos are about: parking lots seen from a drone." in each for each in model.requests)


def test_a_model_that_names_no_class_is_given_up_early() -> None:
    model = Replies(["I cannot help with that."])

    with pytest.raises(SpecError) as error:
        write(model, count=100_000, tries=3)

    assert len(model.requests) == 30
    assert str(error.value) == (
        "--model: none of 30 replies is a prompt that names 'car', 'person' (the last one without it: "
        "'I cannot help with that.'); nothing is written: use a model that is tuned to follow instructions, another "
        "--temperature, or more --tries."
    )


def test_a_class_that_is_never_named_is_an_error() -> None:
    model = Replies(lambda request, number: f"A car at house {number} in town {number}")

    with pytest.raises(SpecError, match="is a prompt that names 'person'"):
        write(model)

    assert len(model.requests) == 2 + 2 * 5, "each prompt is asked for five times at most"


def test_a_model_that_repeats_itself_writes_fewer() -> None:
    found = write(Replies(lambda request, _: "A car and a person."), count=2, tries=3)

    assert found.prompts == ["A car and a person."]
    assert found.classes == {"car": 1, "person": 1}
    assert found.rejected == {NEAR_DUPLICATE: 3}


def test_a_stop_writes_nothing() -> None:
    stops = iter([False, True])

    with pytest.raises(Interrupted, match="stopped with 2 of 4 prompts; nothing is written"):
        write_prompts(Wanted(CLASSES, 4, batch=2), Replies(obedient), stop=lambda: next(stops))


def test_the_progress_is_reported() -> None:
    seen: list[tuple[int, int]] = []

    write_prompts(
        Wanted(CLASSES, 4, batch=2), Replies(obedient), on_progress=lambda done, total: seen.append((done, total))
    )

    assert seen == [(2, 4), (4, 4)]
