"""Manifests as people write them: YAML in, datasets or a list of faults out.

All faults are reported at once. Each names its field (`spec.stages[0].txt2img.steps`), what is wrong, and the fix.
Documents of other kinds are skipped: a file may hold a Secret and a dataset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from diffugen_api.contract import KIND, ExitCode
from diffugen_api.errors import shortened
from diffugen_api.faults import Fault, Written, faults_of
from diffugen_api.model_images import OCI
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, SpecError, revision_of
from diffugen_api.v1alpha1 import LabeledDataset, model_of
from diffugen_generator.commands.yaml_documents import Document, documents
from diffugen_generator.failures import Failure
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.side_model_registry import side_models_of
from diffugen_generator.models.checks import check_kind, check_sampler
from diffugen_generator.models.resolve import resolve
from diffugen_generator.models.uris import BUCKET, HUB

_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")


_MOST_SHOWN = 20
"""The most faults in one message."""
_WIDE = 800
"""The most characters of each."""


class InvalidManifest(Failure):
    """An invalid manifest, with all of its faults."""

    reason = "InvalidSpec"
    exit_code = ExitCode.BAD_SPEC

    def __init__(self, file: Path, faults: Sequence[Fault]) -> None:
        """Keep every fault; the message has the first ones."""
        shown = [shortened(str(fault), _WIDE) for fault in faults[:_MOST_SHOWN]]
        more = [f"and {len(faults) - _MOST_SHOWN:,} more"] if len(faults) > _MOST_SHOWN else []
        super().__init__("; ".join([*shown, *more]))
        self.file = file
        self.faults = list(faults)


def is_name(value: object) -> bool:
    """Return whether Kubernetes takes this as the name of an object."""
    return isinstance(value, str) and len(value) <= 253 and _DNS_NAME.match(value) is not None


def not_a_name(value: object) -> str:
    """Return the message for a value that is not a name."""
    return f"{value!r} is not a valid name: use lower-case letters, digits, '-' and '.'"


def read_datasets(file: Path) -> list[LabeledDataset]:
    """Return the datasets of a file, in order; raise `InvalidManifest` with the faults of all of them."""
    found_documents = list(_documents(file))
    datasets, faults = [], []
    for document in found_documents:
        found, wrong = check(document.data, document.written)
        prefix = f"{_name(document.data)}: " if len(found_documents) > 1 else ""
        faults += [Fault(f"{prefix}{fault.path}", fault.message) for fault in wrong]
        if found is not None:
            datasets.append(found)
    if faults:
        raise InvalidManifest(file, faults)
    return datasets


def refuse_warnings(file: Path, warnings: Sequence[str]) -> None:
    """Raise `InvalidManifest` with `warnings` as faults, if there are any (`--strict`)."""
    if warnings:
        raise InvalidManifest(file, [Fault(*warning.split(": ", 1)) for warning in warnings])


def order_of(dataset: LabeledDataset) -> WorkOrder:
    """Return the work order of a dataset, as the operator would write it."""
    spec = dataset.spec
    return WorkOrder(namespace=dataset.namespace, name=dataset.name, revision=revision_of(spec), spec=spec)


def check(document: Mapping[str, Any], written: Written = lambda _: None) -> tuple[LabeledDataset | None, list[Fault]]:
    """Return the dataset of one document, or its faults; `written` returns a scalar as the file spells it."""
    faults = list(_metadata_faults(document.get("metadata")))
    try:
        dataset = LabeledDataset.model_validate(document)
    except ValidationError as error:
        found = faults_of(error, LabeledDataset, document, written=written)
        return None, [*faults, *(fault for fault in found if fault.path != "metadata")]
    faults += _spec_faults(dataset)
    return (None if faults else dataset), faults


def _documents(file: Path) -> Iterator[Document]:
    try:
        text = file.read_text(encoding="utf-8")
        found = list(documents(text))
    except OSError as error:
        raise InvalidManifest(file, [Fault("", f"it cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise InvalidManifest(file, [Fault("", "it is not text in UTF-8")]) from error
    except yaml.YAMLError as error:
        raise InvalidManifest(file, [Fault("", f"it is not YAML: {_one_line(error)}")]) from error
    except RecursionError as error:
        raise InvalidManifest(file, [Fault("", "it is nested too deeply to be read")]) from error
    datasets = [each for each in found if isinstance(each.data, dict) and each.data.get("kind") == KIND]
    if not datasets:
        kinds = ", ".join(_kind_of(each.data) for each in found) or "nothing"
        raise InvalidManifest(file, [Fault("kind", f"the file has no {KIND}: it has {kinds}")])
    yield from datasets


def _kind_of(data: object) -> str:
    return f"the kind {data.get('kind')!r}" if isinstance(data, dict) else "a document that is not a map"


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _name(document: object) -> str:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return str(metadata.get("name", "?")) if isinstance(metadata, dict) else "?"


def _metadata_faults(metadata: object) -> Iterator[Fault]:
    if not isinstance(metadata, dict) or not metadata.get("name"):
        yield Fault("metadata.name", "it is missing: give the dataset a name")
        return
    for field in ("name", "namespace"):
        value = metadata.get(field)
        if value is not None and not is_name(value):
            yield Fault(f"metadata.{field}", not_a_name(value))


def _spec_faults(dataset: LabeledDataset) -> Iterator[Fault]:
    """Yield the faults of fields that are valid each by itself, but not together."""
    try:
        expansion = Expansion(dataset.spec)
        expansion.check_weights()
        if dataset.spec.prompts.file is None:  # the commands read the file once, and check the stages then
            expansion.check_stages()
    except SpecError as error:
        yield _fault_of(error)
        return
    stages = dataset.spec.stages
    found = dict[str, ModelFolder]()
    for (model, field), task in {model_of(stages, each): each.task for each in stages if each.draws}.items():
        if _is_everywhere(model):
            try:
                found[field] = resolve(model, field=field)
                check_kind(found[field], task, field)
            except SpecError as error:
                yield _fault_of(error)
    for number, stage in enumerate(stages):
        if stage.draws and (field := model_of(stages, stage)[1]) in found:
            drawing = f"spec.stages[{number}].{stage.kind}"
            try:
                check_sampler(found[field], stage.task, field=field, stage=drawing)
            except SpecError as error:
                yield _fault_of(error)
    try:
        side_models_of(dataset.spec, _is_everywhere)
    except SpecError as error:
        yield _fault_of(error)


def _is_everywhere(model: str) -> bool:
    """Return whether a model can be found here. A folder or an image is in the pod; the plan checks them."""
    return not model.startswith(("/", HUB, BUCKET, OCI))


def _fault_of(error: SpecError) -> Fault:
    path, _, message = str(error).partition(": ")
    return Fault(path, message.rstrip("."))
