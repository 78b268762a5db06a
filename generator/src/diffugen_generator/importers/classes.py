"""Converts `dataset_classes`, `dataset_to_model_class_map` and `txt2img.object_names` to `spec.classes`.

DiffuGen never reads `dataset_classes`. Its labels have the label model's own class ids, or 0 without supervision. So
two classes that the map gives the same name of the model are one class in DiffuGen's labels.
"""

from __future__ import annotations

import re
from typing import Any

from diffugen_api.v1alpha1.prompts import NAME_PATTERN
from diffugen_generator.importers.checkout import Checkout
from diffugen_generator.importers.config import YOLO, Config
from diffugen_generator.importers.manifest_draft import ManifestDraft

_NAME = re.compile(NAME_PATTERN)
_CLASSES = ("spec", "classes")


def classes_of(config: Config, checkout: Checkout, draft: ManifestDraft) -> list[dict[str, Any]]:
    """Return `spec.classes`, in the order of `dataset_classes`, followed by objects that are not in that list."""
    draft.comes_from(_CLASSES, "dataset_classes")
    objects = list(dict.fromkeys(config.txt2img.lists.get("object_names", [])))
    if "" in objects:
        draft.problem("txt2img.object_names", "a name is empty, so it has no class; name the object")
    words = _unsupervised(config, objects, draft) if config.unsupervised else _supervised(config, objects, draft)
    if not config.unsupervised:
        _check_model_classes(config, checkout, draft)
    by_lower: dict[str, str] = {}
    for word in words:
        same = by_lower.setdefault(word.lower(), word)
        if same != word:
            draft.leave_out(f"the class {word!r}", f"it differs from {same!r} by upper and lower case alone.")
    return [_class(number, word, config, draft) for number, word in enumerate(by_lower.values())]


def _unsupervised(config: Config, objects: list[str], draft: ManifestDraft) -> list[str]:
    if config.class_map:
        draft.leave_out(
            f"dataset_to_model_class_map: {dict(config.class_map)}",
            "it is of the label model, which DiffuGen loads and does not ask where unsupervised is true.",
        )
    known = {each.lower() for each in config.dataset_classes}
    if objects and not any(each.lower() in known for each in objects):
        if config.dataset_classes:
            draft.leave_out(
                f"dataset_classes: {config.dataset_classes}",
                "DiffuGen never reads it, and none of txt2img.object_names is in it.",
            )
        draft.comment(_CLASSES, "From txt2img.object_names. DiffuGen gives every object the class id 0.")
        return objects
    draft.comment(
        _CLASSES,
        "From dataset_classes, which DiffuGen never reads: without supervision it gives every object the class id 0.",
    )
    return list(dict.fromkeys((*config.dataset_classes, *objects)))


def _supervised(config: Config, objects: list[str], draft: ManifestDraft) -> list[str]:
    draft.comment(
        _CLASSES,
        "From dataset_classes, which DiffuGen never reads: its labels have the class ids of the label model. "
        "detectorClass is from dataset_to_model_class_map; of classes with the same one, the prompt's word decides.",
    )
    words = []
    for word in dict.fromkeys((*config.dataset_classes, *config.class_map, *objects)):
        if word in config.class_map:
            words.append(word)
        elif word in objects:
            draft.problem(
                f"dataset_to_model_class_map.{word}",
                f"it is missing, and {word!r} is one of txt2img.object_names; write what the label model calls it",
            )
        else:
            draft.leave_out(
                f"dataset_classes: {word!r}",
                "dataset_to_model_class_map has no entry for it and no prompt names it, so nothing labels it.",
            )
    return words


def _check_model_classes(config: Config, checkout: Checkout, draft: ManifestDraft) -> None:
    """Add a problem for each class that the label model does not have, if the list of its classes is found."""
    label = config.label_model
    file = checkout.find(label.classes) if label is not None and label.type == YOLO else None
    if file is None or not file.is_file():
        return
    known = checkout.lines(file)
    for word, native in config.class_map.items():
        if native not in known:
            draft.problem(
                f"dataset_to_model_class_map.{word}",
                f"{native!r} is no class of the label model, and DiffuGen fails on it; name one of {file}",
            )


def _class(number: int, word: str, config: Config, draft: ManifestDraft) -> dict[str, Any]:
    found: dict[str, Any] = {"name": word}
    if not _NAME.match(word):
        found = {
            "name": re.sub(r"[\x00-\x1f\x7f-\x9f]", "-", word).strip(" -") or f"class-{number}",
            "synonyms": [word],
        }
        draft.comment(
            (*_CLASSES, number), f"The name {word!r} has characters that class names may not have; it is a synonym."
        )
    if not config.unsupervised and config.class_map[word] != found["name"]:
        found["detectorClass"] = config.class_map[word]
        draft.comes_from((*_CLASSES, number, "detectorClass"), f"dataset_to_model_class_map.{word}")
    return found
