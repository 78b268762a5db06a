"""Converts `txt2img`, `img2img` and `inpaint` of DiffuGen's file to `spec.stages`.

DiffuGen runs one program after the other. Each reads the folder that an earlier one wrote (`source_dataset`). Only
txt2img loads the textual inversion. Here one manifest has all of these stages.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from diffugen_generator.importers.checkout import Checkout
from diffugen_generator.importers.commented_yaml import Path
from diffugen_generator.importers.config import CHANGED, VARIABLES, Config, ImageToImage, Inpainting, model_problem
from diffugen_generator.importers.manifest_draft import ManifestDraft, Options, shown
from diffugen_generator.importers.prompts import OBJECT, Templates

BASE: Final = "base"
IMG2IMG: Final = "img2img"
INPAINT: Final = "inpaint"
PROGRAMS: Final[Mapping[str, str]] = {"txt2img": BASE, "img2img": IMG2IMG, "inpaint": INPAINT}
"""The stage of each of DiffuGen's programs."""
_IMG2IMG_STRENGTH: Final = 0.8
"""The default of diffusers 0.16.1, which DiffuGen pins; DiffuGen does not set this value."""
_SOLVER: Final = "dpmsolver++"
"""DPMSolverMultistepScheduler, which DiffuGen sets for img2img and inpaint, in its default configuration."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+\Z")
_WORD_IN_BRACKETS = re.compile(r"<[^<>\s]+>")


@dataclass(slots=True)
class StageWriter:
    """Writes the stages of one configuration."""

    config: Config
    options: Options
    checkout: Checkout
    templates: Templates
    draft: ManifestDraft

    def stages(self) -> list[dict[str, Any]]:
        """Return `spec.stages`: the base, and the stages that draw from it."""
        stages = [{"name": BASE, "txt2img": self._base()}]
        if self.config.img2img is not None and (task := self._redrawn(self.config.img2img, len(stages))):
            stages.append({"name": IMG2IMG, "img2img": task})
        if self.config.inpaint is not None and (task := self._repainted(self.config.inpaint, len(stages))):
            stages.append({"name": INPAINT, "inpaint": task})
        return stages

    def _base(self) -> dict[str, Any]:
        path = ("spec", "stages", 0, "txt2img")
        self.draft.comes_from((*path, "steps"), "steps")
        model = self._model(self.config.txt2img.model, "txt2img", path)
        embeddings = self._embeddings(path)
        return {
            "model": model,
            "steps": self.config.steps,
            **({"embeddings": embeddings} if embeddings else {}),
        }

    def _model(self, given: str, program: str, path: Path) -> str:
        """Return the address of a program's model."""
        key = f"{program}.stable_diffusion_model"
        self.draft.comes_from((*path, "model"), "--model" if self.options.model else key)
        if self.options.model:
            self.draft.comment((*path, "model"), f"--model. {key}: {shown(given)}")
            return self.options.model
        if not given:
            self.draft.problems.append(model_problem(key))
            return ""
        if (folder := self.checkout.find(given)) is not None and folder.is_dir():
            return str(folder)
        if _REPOSITORY.match(given):
            self.draft.comment(
                (*path, "model"), "Add @REVISION to pin it: the plan takes the latest revision otherwise."
            )
            return f"hf://{given}"
        self.draft.problem(
            key, f"{given!r} is neither a folder below {self.checkout} nor ORG/NAME of a repository; use --model"
        )
        return ""

    def _embeddings(self, path: Path) -> list[dict[str, str]]:
        inversion = self.config.txt2img.inversion
        if inversion is None:
            return []
        where = (*path, "embeddings", 0)
        self.draft.comes_from((*where, "uri"), "txt2img.textual_inversion.weights")
        self.draft.comes_from((*where, "token"), "txt2img.textual_inversion.keyword")
        token = inversion.keyword
        if token:
            self.draft.comment(
                (*where, "token"), "keyword, which DiffuGen never reads: there the file's own name for the word counts."
            )
        else:
            token = self._guessed_token(where)
        if not any(token.lower() in text.lower() for text in self.templates.texts):
            self.draft.comment((*where, "token"), "No prompt has this word, so the embedding has no effect.")
        file = self.checkout.find(inversion.weights)
        if file is None:
            self.draft.comment(
                (*where, "uri"),
                f"{inversion.weights!r} is not below {self.checkout}: write the absolute path or s3://BUCKET/FILE.",
            )
        return [{"uri": str(file or inversion.weights), "token": token}]

    def _guessed_token(self, where: Path) -> str:
        found: list[str] = sorted({word for text in self.templates.texts for word in _WORD_IN_BRACKETS.findall(text)})
        if len(found) != 1:
            self.draft.problem(
                "txt2img.textual_inversion.keyword",
                "it is missing, and the prompts do not have exactly one word in angle brackets; write the word that "
                'stands for the embedding in the prompts, such as "<piano>"',
            )
            return ""
        self.draft.comment(
            (*where, "token"), "keyword is missing; this is the only word in angle brackets in the prompts."
        )
        return found[0]

    def _source(self, given: str, program: str, path: Path) -> str:
        """Return the stage whose images a program reads."""
        key = f"{program}.source_dataset"
        others = [other for other in PROGRAMS if other != program and (other == "txt2img" or self._has(other))]
        for other in others:
            if _same_folder(given, self.config.set_of(other)):
                self.draft.comes_from((*path, "from"), key)
                return PROGRAMS[other]
        sets = " or ".join(repr(self.config.set_of(other)) for other in others)
        self.draft.problem(
            key, f"{given!r} is no set of this file; write {sets}, or add the stage to that set's manifest"
        )
        return BASE

    def _has(self, program: str) -> bool:
        return (self.config.img2img if program == "img2img" else self.config.inpaint) is not None

    def _own_model(self, given: str, program: str, path: Path) -> dict[str, Any]:
        """Return model and embeddings of a stage that draws from another; empty if they are those of the base."""
        if self.options.model or given == self.config.txt2img.model:
            return {}
        if not given:
            self.draft.comment(
                path, f"{program}.stable_diffusion_model is missing, which DiffuGen fails on: the source's."
            )
            return {}
        own: dict[str, Any] = {"model": self._model(given, program, path)}
        if embeddings := self._embeddings(path):
            self.draft.comment(
                (*path, "embeddings"), f"DiffuGen loads none for {program}: there the word is plain text."
            )
            own["embeddings"] = embeddings
        return own

    def _redrawn(self, task: ImageToImage, number: int) -> dict[str, Any]:
        path = ("spec", "stages", number, "img2img")
        variables = {}
        for name in CHANGED:
            field, values = VARIABLES[name], list(dict.fromkeys(task.lists[name]))
            if field in self.templates.variables:
                variables[field] = [value or " " for value in values]
                self.draft.comes_from((*path, "variables", field), f"img2img.{name}")
                continue
            self.draft.leave_out(f"img2img.{name}: {values}", f"no prompt names {{{field}}}, so it changes nothing.")
            if len(values) > 1:
                self.draft.differs(
                    IMG2IMG, f"no prompt names {{{field}}}: DiffuGen draws the same image {len(values)} times"
                )
        if not variables:
            self.draft.leave_out("img2img", "no prompt names any of what it changes, so there is nothing to draw.")
            return {}
        self.draft.comment(
            (*path, "variables"),
            "DiffuGen leaves a source out where one new value is a part of the source's own (day of day, clear of "
            "unclear); here a source is left out where the prompt stays the same.",
        )
        self.draft.differs(IMG2IMG, "DiffuGen leaves out what has a new value that is part of the source's own")
        self.draft.comment((*path, "strength"), "diffusers' default, which DiffuGen does not change.")
        self.draft.comment((*path, "scheduler"), "DiffuGen sets DPMSolverMultistepScheduler here, and not in txt2img.")
        return {
            "from": self._source(task.source, "img2img", path),
            **self._own_model(task.model, "img2img", path),
            "strength": _IMG2IMG_STRENGTH,
            "variables": variables,
            "steps": self.config.steps,
            "scheduler": _SOLVER,
        }

    def _repainted(self, task: Inpainting, number: int) -> dict[str, Any]:
        path = ("spec", "stages", number, "inpaint")
        objects = {name.lower(): name for name in self.config.txt2img.lists.get("object_names", [])}
        replacements: dict[str, list[str]] = {}
        for name, texts in task.replacements.items():
            if name.lower() not in objects:
                self.draft.leave_out(f"inpaint.{name}: {texts}", "it is none of txt2img.object_names.")
                continue
            replacements[name] = list(dict.fromkeys(texts))
            self.draft.comes_from((*path, "replacements", name), f"inpaint.{name}")
        if not replacements:
            self.draft.leave_out("inpaint", "it replaces none of txt2img.object_names, so there is nothing to draw.")
            return {}
        self.draft.differs(
            INPAINT, "here a source counts for every class that its prompt names, also beside the object"
        )
        self.draft.comment(
            (*path, "instances"), "DiffuGen replaces the largest object of any class; here of this class."
        )
        self.draft.comment((*path, "scheduler"), "DiffuGen sets DPMSolverMultistepScheduler here, and not in txt2img.")
        template = self._inpaint_template(path)
        return {
            "from": self._source(task.source, "inpaint", path),
            **self._own_model(task.model, "inpaint", path),
            "replacements": replacements,
            **({"template": template} if template else {}),
            "instances": "largest",
            "steps": self.config.steps,
            "scheduler": _SOLVER,
        }

    def _inpaint_template(self, path: Path) -> str:
        """Return DiffuGen's prompt for a replacement; empty where the sources' prompts do not have its variable."""
        images = self.config.img2img
        if images is not None and _same_folder(images.source, self.config.set_of("inpaint")):
            self.draft.comment(
                path,
                'DiffuGen\'s prompt is "a {view_point} view of {object}", which img2img could not change: here the '
                "source's prompt is drawn with the object's name replaced.",
            )
            return ""
        views = self.config.txt2img.lists.get("view_points", [])
        if self.templates.all_name("view_point"):
            view = "{view_point}"
        elif len(set(views)) == 1 and "{" not in views[0] + "}" and "}" not in views[0]:
            view = views[0]
        else:
            self.draft.comment(
                path,
                'DiffuGen\'s prompt is "a {view_point} view of {object}", and not every prompt names {view_point}: '
                "here the source's prompt is drawn with the object's name replaced.",
            )
            return ""
        self.draft.comment((*path, "template"), "DiffuGen's own prompt for a replacement; it is not in the file.")
        return f"a {view} view of {{{OBJECT}}}"


def _same_folder(one: str, other: str) -> bool:
    return posixpath.normpath(one.replace("\\", "/")) == posixpath.normpath(other.replace("\\", "/"))
