"""Whether a spec's prompts fit its models, asked by the plan: before any GPU is asked for, and in no time.

The longest prompt of each template is looked at, not every prompt: variables make a million prompts of a few
templates. What is left, a prompt whose values are shorter to the eye and longer to the tokenizer, the worker
refuses. The tokenizer itself takes a second to load, so a bound comes first, from the vocabulary alone: a word
that has a token is one token, any other at most one for each byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator

from diffugen_api.plan import templates_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.models import ModelFolder
from diffugen_generator.prompt_limits import MARKS, PromptLimit

_PIECES = re.compile(r"[^\W\d_]+|\d|[^\s\w]+|_+")
"""Letters, single digits, runs of signs: how CLIP's tokenizer cuts a text before it looks pieces up."""
_END_OF_WORD = "</w>"


def check_prompts(spec: LabeledDatasetSpec, model: ModelFolder) -> None:
    """Raise `SpecError` naming the field whose prompts are longer than the model reads."""
    limit, vocabulary = PromptLimit(model), _vocabulary(model)
    texts = [*longest_prompts(spec), ("spec.prompts.negative", spec.prompts.negative)]
    for field, text in texts:
        if most_tokens(text, vocabulary) > limit.tokens - MARKS:
            limit.check(text, field=field)


def longest_prompts(spec: LabeledDatasetSpec) -> Iterator[tuple[str, str]]:
    """Yield each template's field and its longest prompt."""
    values = {name: max(given, key=len) for name, given in spec.prompts.variables.items()}
    for number, template in enumerate(templates_of(spec)):
        yield f"spec.prompts.templates[{number}]", template.render(values)


def most_tokens(text: str, vocabulary: Container[str]) -> int:
    """Return a number of tokens that `text` does not exceed."""
    pieces = _PIECES.findall(text.lower())
    return sum(1 if piece + _END_OF_WORD in vocabulary else len(piece.encode()) for piece in pieces)


def _vocabulary(model: ModelFolder) -> Container[str]:
    """Return the tokenizer's tokens; none where it keeps them in another way, so that it is asked itself."""
    try:
        return set(json.loads((model.path / "tokenizer" / "vocab.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return set()
