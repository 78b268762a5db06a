"""Converts `txt2img` of DiffuGen's file to `spec.prompts`: templates, variables, negative prompt, images per prompt.

DiffuGen fills a prompt with `str.format`, once for every combination of its five lists, also of lists that the prompt
does not name. Here a variable that no prompt names has no effect. So its number of values goes into `samplesPerPrompt`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Final

from diffugen_generator.importers.config import VARIABLES, Config
from diffugen_generator.importers.manifest_draft import ManifestDraft, Options

OBJECT: Final = "object"
"""Our name for DiffuGen's `object_name`: a variable of this name is checked against the classes."""
FIELDS: Final[Mapping[str, str]] = {"object_name": OBJECT}
"""Fields of DiffuGen's prompts that have another name here."""
LIST_OF: Final[Mapping[str, str]] = {FIELDS.get(field, field): name for name, field in VARIABLES.items()}
"""DiffuGen's list for each variable."""
_WINDOW: Final = 75
"""Tokens that CLIP reads at once, without the start and end tokens."""
_PROMPTS = ("spec", "prompts")


@dataclass(frozen=True, slots=True)
class Templates:
    """The prompts as templates, and the variables that each of them names."""

    texts: list[str]
    named: list[frozenset[str]]

    @property
    def variables(self) -> list[str]:
        """All variables that the templates name, in DiffuGen's order."""
        return [name for name in LIST_OF if any(name in names for names in self.named)]

    def all_name(self, variable: str) -> bool:
        """Return whether every template names a variable."""
        return all(variable in names for names in self.named)


def templates_of(config: Config, draft: ManifestDraft) -> Templates:
    """Return the prompts as templates; prompts that `str.format` cannot fill are problems."""
    texts, named = [], []
    for number, prompt in enumerate(config.txt2img.prompts):
        text, names = _template(prompt, f"txt2img.prompts[{number}]", draft)
        texts.append(text)
        named.append(frozenset(names))
        draft.comes_from((*_PROMPTS, "templates", number), f"txt2img.prompts[{number}]")
    return Templates(texts, named)


def prompts_of(config: Config, templates: Templates, options: Options, draft: ManifestDraft) -> dict[str, Any]:
    """Return `spec.prompts`."""
    variables = {name: _values(config, name, draft) for name in templates.variables}
    draft.comes_from((*_PROMPTS, "negative"), "txt2img.negative_prompt")
    draft.comes_from((*_PROMPTS, "samplesPerPrompt"), "txt2img.seed_count_per_prompt")
    _comment_weights(config, templates, variables, options, draft)
    if _tokens(config.txt2img.negative) > _WINDOW:
        draft.comment(
            (*_PROMPTS, "negative"),
            "DiffuGen lets CLIP cut the negative prompt after 75 tokens; here all of it is read, window by window.",
        )
    return {
        "templates": templates.texts,
        **({"variables": variables} if variables else {}),
        **({"negative": config.txt2img.negative} if config.txt2img.negative else {}),
        "syntax": options.syntax,
        "samplesPerPrompt": _samples_per_prompt(config, templates, draft),
    }


def _template(prompt: str, key: str, draft: ManifestDraft) -> tuple[str, list[str]]:
    """Return a prompt of `str.format` as a template, and the variables that it names."""
    try:
        pieces = list(Formatter().parse(prompt))
    except ValueError as error:
        draft.problem(key, f"{error}, so DiffuGen cannot fill it either; write {{{{ or }}}} for a brace itself")
        return prompt, []
    text, names = "", []
    for literal, field, form, conversion in pieces:
        text += literal.replace("{", "{{").replace("}", "}}")
        if field is None:
            continue
        if field not in VARIABLES.values():
            known = ", ".join(f"{{{name}}}" for name in VARIABLES.values())
            draft.problem(key, f"{{{field}}} is none of DiffuGen's fields, and it fails on it; use {known}")
            continue
        if form or conversion:
            draft.problem(key, f"{{{field}}} has a format or a conversion; write {{{field}}} alone")
        names.append(FIELDS.get(field, field))
        text += f"{{{names[-1]}}}"
    return text, names


def _values(config: Config, variable: str, draft: ManifestDraft) -> list[str]:
    """Return the values of a variable that a prompt names."""
    name = LIST_OF[variable]
    key, path = f"txt2img.{name}", (*_PROMPTS, "variables", variable)
    given = config.txt2img.lists.get(name)
    if given is None:
        draft.problem(key, f"it is missing, and a prompt names {{{VARIABLES[name]}}}; give it one value or more")
        return []
    draft.comes_from(path, key)
    if variable == OBJECT:
        draft.comment(path, "DiffuGen's object_name, under the name that is checked against the classes.")
    if len(set(given)) < len(given):
        twice = sorted({value for value in given if given.count(value) > 1})
        draft.comment(path, f"{key} has {', '.join(map(repr, twice))} more than once; here once.")
        draft.differs("base", f"{key} has values twice, whose prompts DiffuGen draws twice")
    if "" in given:
        draft.comment(path, "An empty value is written as a blank: a value may not be empty here; CLIP reads the same.")
    return [value or " " for value in dict.fromkeys(given)]


def _samples_per_prompt(config: Config, templates: Templates, draft: ManifestDraft) -> int:
    path = (*_PROMPTS, "samplesPerPrompt")
    text = config.txt2img
    factors = [_unnamed(config, names) for names in templates.named] or [1]
    for variable, name in LIST_OF.items():
        if variable in templates.variables:
            continue
        if name not in text.lists:
            draft.leave_out(
                f"txt2img.{name}", "missing, which DiffuGen fails on; no prompt names it, so none is needed."
            )
            continue
        count = len(text.lists[name])
        effect = (
            f"DiffuGen draws each prompt {count} times for it; so does samplesPerPrompt" if count > 1 else "no effect"
        )
        draft.leave_out(f"txt2img.{name}: {text.lists[name]}", f"no prompt names {{{VARIABLES[name]}}}: {effect}.")
    factor = max(factors)
    if factor > 1:
        draft.comment(
            path,
            f"DiffuGen's seed_count_per_prompt is {text.seeds_per_prompt}; variables that no prompt names multiply its "
            f"draws by {factor}.",
        )
    if len(set(factors)) > 1:
        each = ", ".join(f"{text.seeds_per_prompt * factor}" for factor in factors)
        draft.comment(
            path,
            "The prompts leave out different variables, so DiffuGen draws them differently often, in the order of the "
            f"templates: {each} times. Here each is drawn as often as the one drawn most.",
        )
        draft.differs("base", "the prompts leave out different variables, and all are drawn as often as the first here")
    room = text.seeds[1] - text.seeds[0] + 1
    if room < text.seeds_per_prompt:
        draft.comment(
            path,
            f"txt2img.seed_range has room for {room} seeds, so DiffuGen fails on {text.seeds_per_prompt} different "
            "ones; here seeds are not limited to a range.",
        )
    return text.seeds_per_prompt * factor


def _unnamed(config: Config, names: frozenset[str]) -> int:
    """Return how often DiffuGen draws the same prompt because of variables that the prompt does not name."""
    lists = config.txt2img.lists
    return math.prod(len(lists.get(name, [""])) for variable, name in LIST_OF.items() if variable not in names)


def _comment_weights(
    config: Config,
    templates: Templates,
    variables: Mapping[str, Sequence[str]],
    options: Options,
    draft: ManifestDraft,
) -> None:
    path = (*_PROMPTS, "syntax")
    if options.syntax == "none":
        draft.comment(path, "DiffuGen gives ++ and (…:1.4) to the model as text, and so does none. auto applies them.")
        return
    draft.comment(
        path,
        "auto applies ++ and (…:1.4) as weights, which is what they are written for. DiffuGen gives them to the model "
        "as text: `diffugen import --syntax none` keeps that.",
    )
    for name in templates.variables:
        several = [value for value in variables[name] if " " in value.strip()]
        weighted = any(re.search(rf"\{{{name}\}}[+-]", text) for text in templates.texts)
        if several and weighted:
            draft.comment(
                (*_PROMPTS, "variables", name),
                f"A prompt has weights behind {{{name}}}; of {', '.join(map(repr, several))} they weight the last word "
                f"alone: write ({{{name}}})++ there to weight all of it.",
            )


def _tokens(text: str) -> int:
    """Return about how many tokens CLIP makes of a text: one for each word and each punctuation mark."""
    return len(re.findall(r"\w+|[^\w\s]", text))
