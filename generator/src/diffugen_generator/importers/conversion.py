"""Converts a DiffuGen configuration to a LabeledDataset manifest, with comments on values that need one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from diffugen_api.contract import GROUP, KIND, VERSION
from diffugen_api.errors import SpecError
from diffugen_api.plan import Expansion
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.importers.checkout import Checkout
from diffugen_generator.importers.classes import classes_of
from diffugen_generator.importers.commented_yaml import dump
from diffugen_generator.importers.config import Config
from diffugen_generator.importers.diffugen_counts import drawn_by_inpainting, drawn_from_images, drawn_from_text
from diffugen_generator.importers.json_fields import InvalidConfigError
from diffugen_generator.importers.labeling import labeling_of
from diffugen_generator.importers.manifest_draft import ManifestDraft, Options, shown
from diffugen_generator.importers.prompts import prompts_of, templates_of
from diffugen_generator.importers.stages import BASE, IMG2IMG, INPAINT, StageWriter

_FORMATS: Final[Mapping[str, str]] = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
_MOST_PER_SHARD: Final = 10_000


@dataclass(frozen=True, slots=True)
class Conversion:
    """A manifest and its comments."""

    config: Config
    document: Mapping[str, Any]
    draft: ManifestDraft

    def counts(self, spec: LabeledDatasetSpec) -> dict[str, tuple[int, int]]:
        """Return for each stage how many samples it has here, and how many images DiffuGen draws."""
        base = drawn_from_text(self.config)
        drawn = {BASE: base}
        sources = {each.name: each.source or "" for each in spec.stages}
        for name, draw in ((IMG2IMG, drawn_from_images), (INPAINT, drawn_by_inpainting)):
            if name in sources and sources[name] in drawn:
                drawn[name] = draw(self.config, drawn[sources[name]])
        if IMG2IMG in sources and IMG2IMG not in drawn:  # it draws from what inpaint drew
            drawn[IMG2IMG] = drawn_from_images(self.config, drawn[INPAINT])
        expansion = Expansion(spec)
        return {name: (expansion.count_distinct_samples(name), drawn[name].total()) for name in sources}

    def text(self, spec: LabeledDatasetSpec, file: str) -> str:
        """Return the manifest as YAML; `file` is the configuration's name."""
        return dump(self.document, self.draft.comments, self._header(spec, file))

    def _header(self, spec: LabeledDatasetSpec, file: str) -> list[str]:
        first = (
            f"Imported by `diffugen import` from {file}, a configuration of DiffuGen. A comment says what became of "
            "each value that was dead, broken or ambiguous there."
        )
        lines = [first, "", "Samples, here and in DiffuGen:"]
        for stage, (here, there) in self.counts(spec).items():
            lines.append(f"   {stage:<8}{here:>8,}{there:>8,}")
            if here != there:
                lines += [f"   {'':8}  {why}" for why in self.draft.differences.get(stage, ())]
        if self.draft.left_out:
            lines += ["", "Keys that have no place here:"]
            lines += [f"{key}: {why}" for key, why in self.draft.left_out]
        return lines


def convert(config: Config, options: Options, checkout: Checkout) -> Conversion:
    """Convert a configuration; raise `InvalidConfigError` with all of its problems."""
    draft = ManifestDraft()
    templates = templates_of(config, draft)
    spec: dict[str, Any] = {
        "classes": classes_of(config, checkout, draft),
        "image": _image(config, draft),
        "seed": config.txt2img.seeds[0],
        "prompts": prompts_of(config, templates, options, draft),
        "stages": StageWriter(config, options, checkout, templates, draft).stages(),
        "labeling": labeling_of(config, options, checkout, draft),
        **_run(config, draft),
    }
    low, high = config.txt2img.seeds
    draft.comment(
        ("spec", "seed"),
        f"txt2img.seed_range: {low} to {high}. DiffuGen draws seeds from it again in each run; here every image's seed "
        "derives from this one.",
    )
    _comment_dead_keys(config, draft)
    metadata = {"name": _name(config, draft)}
    if draft.problems:
        raise InvalidConfigError(draft.problems)
    document = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": spec}
    _settle_inpaint_template(spec, draft)
    return Conversion(config, document, draft)


def _name(config: Config, draft: ManifestDraft) -> str:
    name = re.sub(r"[^a-z0-9.]+", "-", config.name.lower()).strip("-.")
    draft.comes_from(("metadata", "name"), "dataset_name")
    if name != config.name:
        draft.comment(("metadata", "name"), f"dataset_name: {config.name!r}, in the letters that names may have.")
    if config.root:
        draft.leave_out(
            f"dataset_root: {config.root!r}", f"`diffugen run FILE --store {config.root}` writes there; a cluster's is "
            "spec.output.s3."
        )  # fmt: skip
    return name


def _image(config: Config, draft: ManifestDraft) -> dict[str, Any]:
    path = ("spec", "image")
    draft.comes_from((*path, "width"), "image_size.width")
    draft.comes_from((*path, "height"), "image_size.height")
    form = _FORMATS.get(config.image_format.lower().lstrip("."), "png")
    if form != "png" or config.image_format != "png":
        draft.comment(
            (*path, "format"),
            f"image_format: {config.image_format!r}. DiffuGen's txt2img writes png all the same, so that its img2img "
            "and inpaint find no image of another format.",
        )
    if config.width != config.height:
        draft.comment(path, "DiffuGen exchanges width and height of the masks of images that are not square.")
    return {"width": config.width, "height": config.height, "format": form}


def _run(config: Config, draft: ManifestDraft) -> dict[str, Any]:
    if not config.images_per_shard:
        return {}
    path = ("spec", "run", "samplesPerShard")
    draft.comes_from(path, "images_per_shard")
    draft.comment(path, "images_per_shard. A shard is the work of one pod; DiffuGen's are folders of the output.")
    if config.images_per_shard > _MOST_PER_SHARD:
        draft.comment(path, f"It was {config.images_per_shard:,}; {_MOST_PER_SHARD:,} is the most.")
    return {"run": {"samplesPerShard": min(config.images_per_shard, _MOST_PER_SHARD)}}


def _comment_dead_keys(config: Config, draft: ManifestDraft) -> None:
    if config.deterministic is not None:
        draft.leave_out(
            f"deterministic: {str(config.deterministic).lower()}",
            "no program of DiffuGen reads it. Here the same manifest always has the same seeds.",
        )
    if config.txt2img.image_count is not None:
        draft.leave_out(
            f"txt2img.image_count: {config.txt2img.image_count}",
            "no program of DiffuGen reads it: all prompts are drawn. `prompts.sample` draws a number of them.",
        )
    for key, value in config.unknown.items():
        draft.leave_out(f"{key}: {shown(value)}", "DiffuGen has no such key.")


def _settle_inpaint_template(spec: dict[str, Any], draft: ManifestDraft) -> None:
    """Remove DiffuGen's own inpaint prompt if classes of a source would get no label with it."""
    found = [(number, stage["inpaint"]) for number, stage in enumerate(spec["stages"]) if "inpaint" in stage]
    if not found or "template" not in found[0][1]:
        return
    number, task = found[0]
    try:
        Expansion(LabeledDatasetSpec.model_validate(spec)).check_stages()
    except ValidationError:
        return  # the caller reports it
    except SpecError as error:
        if error.reason != "ObjectLeftOut":
            return
        template = task.pop("template")
        path = ("spec", "stages", number, "inpaint")
        draft.comments.pop((*path, "template"), None)
        draft.comment(
            path,
            f"DiffuGen's prompt for a replacement is {template!r}, and leaves out other classes of the source's "
            "prompt: here the source's prompt is drawn with the object's name replaced.",
        )
