"""Converts `unsupervised` and `label_model` to `spec.labeling`: attention, or the label model as a detector."""

from __future__ import annotations

from typing import Any

from diffugen_generator.importers.checkout import Checkout
from diffugen_generator.importers.config import YOLO, Config
from diffugen_generator.importers.manifest_draft import ManifestDraft, Options, shown

_LABELING = ("spec", "labeling")
_DETECTOR = (*_LABELING, "detector")


def labeling_of(config: Config, options: Options, checkout: Checkout, draft: ManifestDraft) -> dict[str, Any]:
    """Return `spec.labeling`."""
    label = config.label_model
    if config.unsupervised:
        draft.comment(
            (*_LABELING, "attention"),
            "unsupervised: true. DiffuGen thresholds the attention of one word by Otsu, which finds an object in every "
            "image, and erodes by a fixed number of pixels. `capture: inline` sums attention as it does.",
        )
        if label is not None:
            draft.leave_out(
                f"label_model: {label.weights}", "DiffuGen loads it and does not ask it where unsupervised is true."
            )
        return {"attention": {"capture": "posthoc"}}
    draft.comment(_DETECTOR, "unsupervised: false.")
    if options.detector:
        draft.comment(
            (*_DETECTOR, "model"), f"--detector. label_model.weights: {shown(label.weights if label else '')}"
        )
        draft.comes_from((*_DETECTOR, "model"), "--detector")
        return {"detector": {"type": "transformers", "model": options.detector}}
    if label is None:
        draft.problem(
            "label_model",
            'it is missing and unsupervised is false; write {"type": "YOLOSeg", "weights": "FILE.pt", "classes": '
            '"FILE.txt"}, set unsupervised to true, or use --detector',
        )
        return {}
    if label.type != YOLO:
        draft.problem("label_model.type", f"{label.type!r} is not supported, by DiffuGen neither; write {YOLO!r}")
    if (file := checkout.find(label.weights)) is None or not file.is_file():
        draft.problem(
            "label_model.weights",
            f"there is no file {label.weights!r} below {checkout}, and its SHA-256 must be in the manifest; give "
            "DiffuGen's folder with --root, or another label model with --detector",
        )
        return {}
    if label.classes:
        draft.leave_out(f"label_model.classes: {label.classes!r}", "the model's file has the names of its classes.")
    draft.comes_from((*_DETECTOR, "model"), "label_model.weights")
    draft.comment(
        (*_DETECTOR, "model"),
        f"label_model.weights: {label.weights!r}. On a cluster, put the file into a bucket: s3://BUCKET/FILE.pt. "
        "It needs the extra `yolo` (AGPL-3.0).",
    )
    return {"detector": {"type": "yolo", "model": str(file), "sha256": checkout.sha256(file)}}
