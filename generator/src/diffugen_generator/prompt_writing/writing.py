"""Writes prompts with a chat model until each class has its share: rejects, asks again, and gives up in the end."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from diffugen_api.errors import SpecError
from diffugen_api.words import Vocabulary
from diffugen_generator.failures import Interrupted
from diffugen_generator.prompt_writing.near_duplicates import NearDuplicates
from diffugen_generator.prompt_writing.replies import NEAR_DUPLICATE, NO_CLASS, judged
from diffugen_generator.prompt_writing.requests import request_for

_SHOWN: Final = 80


class ChatModel(Protocol):
    """A language model that answers requests."""

    def replies(self, requests: Sequence[str], *, seed: int) -> list[str]:
        """Return one reply for each request; the same requests and seed give the same replies."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to write."""

    classes: Mapping[str, Sequence[str]]
    """The words of each class by its name, which is the first of them."""
    count: int
    """The number of prompts."""
    together: int = 1
    """The most classes that one prompt is asked to name."""
    about: str = ""
    """What the photos are about."""
    seed: int = 0
    batch: int = 8
    """The number of requests at once."""
    tries: int = 5
    """How often one prompt is asked for before it is given up."""


@dataclass(slots=True)
class Written:
    """The prompts, and what happened on the way."""

    prompts: list[str] = field(default_factory=list)
    classes: Counter[str] = field(default_factory=Counter)
    """The number of prompts that name each class."""
    replies: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """The number of replies that were rejected, by cause."""


@dataclass(slots=True)
class _Slot:
    """One prompt to write."""

    asked: tuple[str, ...]
    tries: int = 0


def write_prompts(
    wanted: Wanted,
    model: ChatModel,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Written:
    """Write the prompts; each names the classes that it was asked for, and none nearly repeats another.

    There can be fewer than asked for, if replies repeat each other. Raises `SpecError` with reason `NoPrompts` if some
    class is named by no reply, and `Interrupted` if `stop` returns True.
    """
    rng = random.Random(wanted.seed)
    vocabulary = Vocabulary(wanted.classes)
    slots = deque(_slots(wanted, rng))
    written, different = Written(), NearDuplicates()
    last = ""
    while slots:
        if stop():
            raise Interrupted(f"stopped with {len(written.prompts):,} of {wanted.count:,} prompts; nothing is written")
        some = [slots.popleft() for _ in range(min(wanted.batch, len(slots)))]
        requests = [request_for(slot.asked, wanted.about, rng) for slot in some]
        replies = model.replies(requests, seed=rng.getrandbits(63))
        written.replies += len(replies)
        for slot, reply in zip(some, replies, strict=True):
            found = judged(reply, slot.asked, vocabulary)
            fault = found.fault or ("" if different.add(found.prompt) else NEAR_DUPLICATE)
            if not fault:
                written.prompts.append(found.prompt)
                written.classes.update(found.named)
                continue
            last = found.prompt if fault == NO_CLASS else last
            written.rejected[fault] += 1
            slot.tries += 1
            if slot.tries < wanted.tries:
                slots.append(slot)
        _check_hopeless(wanted, written, last)
        on_progress(len(written.prompts), wanted.count)
    _check_classes(wanted, written, last)
    return written


def _slots(wanted: Wanted, rng: random.Random) -> list[_Slot]:
    """Return the prompts to write: the classes in turn, each with up to `together` - 1 others."""
    names = list(wanted.classes)
    slots = []
    for number in range(wanted.count):
        first = names[number % len(names)]
        others = [name for name in names if name != first]
        more = rng.randint(0, min(wanted.together - 1, len(others)))
        slots.append(_Slot((first, *rng.sample(others, more))))
    return slots


def _check_hopeless(wanted: Wanted, written: Written, last: str) -> None:
    """Raise `SpecError` if no reply was usable in as many tries as some batches have."""
    if not written.prompts and written.replies >= max(4 * wanted.batch, 10 * wanted.tries):
        raise _nothing(written, list(wanted.classes), last)


def _check_classes(wanted: Wanted, written: Written, last: str) -> None:
    asked = min(wanted.count, len(wanted.classes))
    if missing := [name for name in list(wanted.classes)[:asked] if not written.classes[name]]:
        raise _nothing(written, missing, last)


def _nothing(written: Written, missing: Sequence[str], last: str) -> SpecError:
    names = ", ".join(repr(name) for name in missing)
    shown = last if len(last) <= _SHOWN else f"{last[:_SHOWN]}…"
    ending = f" (the last one without it: {shown!r})" if last else ""
    return SpecError(
        "NoPrompts",
        f"--model: none of {written.replies:,} replies is a prompt that names {names}{ending}; nothing is written: use "
        "a model that is tuned to follow instructions, another --temperature, or more --tries.",
    )
