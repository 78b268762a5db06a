"""Manifests as people write them: YAML in, datasets or a list of faults out.

Every fault is found in one go and named by its path in the manifest (`spec.stages[0].txt2img.steps`), with what is
wrong and what would mend it. Documents of other kinds are passed over: a file may hold a Secret and a dataset.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from diffugen_api.contract import KIND, ExitCode
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError, check_weights, most_samples, revision_of
from diffugen_api.v1alpha1 import WORD_PATTERN, LabeledDataset, model_of
from diffugen_generator.failures import Failure
from diffugen_generator.models.model_folder import BUCKET, HUB, ModelFolder, check_kind, resolve
from diffugen_generator.models.samplers import check_sampler
from diffugen_generator.models.side_models import judges_of

_INNER_PATH = re.compile(r"(?P<path>(?:\w+)?\[\d+\][\w.\[\]]*): ")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a manifest."""

    path: str
    """The field, as the manifest spells it; empty where the file itself is at fault."""
    message: str
    """What is wrong, and what would mend it."""

    def __str__(self) -> str:
        """Return the fault in one line."""
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidManifest(Failure):
    """A manifest that is no dataset: all that is wrong with it."""

    reason = "InvalidSpec"
    exit_code = ExitCode.BAD_SPEC

    def __init__(self, file: Path, faults: Sequence[Fault]) -> None:
        """Keep every fault."""
        super().__init__("; ".join(str(fault) for fault in faults))
        self.file = file
        self.faults = list(faults)


def read_datasets(file: Path) -> list[LabeledDataset]:
    """Return the datasets of a file, in order; raise `InvalidManifest` with the faults of all of them."""
    documents = list(_documents(file))
    datasets, faults = [], []
    for document in documents:
        found, wrong = check(document)
        prefix = f"{_name(document)}: " if len(documents) > 1 else ""
        faults += [Fault(f"{prefix}{fault.path}", fault.message) for fault in wrong]
        if found is not None:
            datasets.append(found)
    if faults:
        raise InvalidManifest(file, faults)
    return datasets


def order_of(dataset: LabeledDataset) -> WorkOrder:
    """Return the work order of a dataset, as the operator would write it."""
    spec = dataset.spec
    return WorkOrder(namespace=dataset.namespace, name=dataset.name, revision=revision_of(spec), spec=spec)


def check(document: Mapping[str, Any]) -> tuple[LabeledDataset | None, list[Fault]]:
    """Return the dataset of one document, or what is wrong with it."""
    faults = list(_metadata_faults(document.get("metadata")))
    try:
        dataset = LabeledDataset.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, [*faults, *(_fault(detail) for detail in details)]
    faults += _spec_faults(dataset)
    return (None if faults else dataset), faults


def _documents(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except OSError as error:
        raise InvalidManifest(file, [Fault("", f"it cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise InvalidManifest(file, [Fault("", "it is not text in UTF-8")]) from error
    except yaml.YAMLError as error:
        raise InvalidManifest(file, [Fault("", f"it is not YAML: {_one_line(error)}")]) from error
    datasets = [d for d in documents if isinstance(d, dict) and d.get("kind") == KIND]
    if not datasets:
        kinds = ", ".join(str(d.get("kind")) if isinstance(d, dict) else "no mapping" for d in documents)
        raise InvalidManifest(file, [Fault("kind", f"there is no {KIND} in it (but: {kinds or 'nothing'})")])
    yield from datasets


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _name(document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    return str(metadata.get("name", "?")) if isinstance(metadata, dict) else "?"


def _metadata_faults(metadata: object) -> Iterator[Fault]:
    if not isinstance(metadata, dict) or not metadata.get("name"):
        yield Fault("metadata.name", "it is missing; give the dataset a name")
        return
    for field in ("name", "namespace"):
        value = metadata.get(field)
        if value is not None and not (isinstance(value, str) and len(value) <= 253 and _DNS_NAME.match(value)):
            yield Fault(f"metadata.{field}", f"{value!r} is no name; use lower-case letters, digits and '-'")


def _spec_faults(dataset: LabeledDataset) -> Iterator[Fault]:
    """Yield what is wrong although every field by itself is right."""
    try:
        check_weights(dataset.spec)
        most_samples(dataset.spec)
    except SpecError as error:
        yield _fault_of(error)
        return
    stages = dataset.spec.stages
    found = dict[str, ModelFolder]()
    for (model, field), kind in {model_of(stages, stage): stage.kind for stage in stages}.items():
        if _is_everywhere(model):
            try:
                found[field] = resolve(model, field=field)
                check_kind(found[field], kind, field)
            except SpecError as error:
                yield _fault_of(error)
    for number, stage in enumerate(stages):
        if (field := model_of(stages, stage)[1]) in found:
            drawing = f"spec.stages[{number}].{stage.kind}"
            try:
                check_sampler(found[field], stage.task.scheduler, stage.task.steps, field=field, stage=drawing)
            except SpecError as error:
                yield _fault_of(error)
    try:
        judges_of(dataset.spec, _is_everywhere)
    except SpecError as error:
        yield _fault_of(error)


def _is_everywhere(model: str) -> bool:
    """Return whether a model is where this runs: a folder is one in the pod, and a place elsewhere the plan asks."""
    return not model.startswith(("/", HUB, BUCKET))


def _fault_of(error: SpecError) -> Fault:
    path, _, message = str(error).partition(": ")
    return Fault(path, message.rstrip("."))


def _fault(detail: ErrorDetails) -> Fault:
    path, message = _path(detail["loc"]), _explained(detail)
    # a rule over several fields says which of them it means
    if detail["type"] == "value_error" and (inner := _INNER_PATH.match(message)) is not None:
        part = inner["path"]
        path, message = path + (part if part.startswith("[") else f".{part}"), message[inner.end() :]
    return Fault(path, message)


def _path(location: tuple[str | int, ...]) -> str:
    path = ""
    for part in location:
        if part == "[key]":
            continue  # pydantic's mark for "the key itself"
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _explained(detail: ErrorDetails) -> str:
    if (explain := _EXPLANATIONS.get(detail["type"])) is not None:
        return explain(detail)
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{message.replace('input should', 'it has to')} (it is {_short(detail['input'])})"


_EXPLANATIONS: Mapping[str, Callable[[ErrorDetails], str]] = {
    "missing": lambda _: "it is missing",
    "extra_forbidden": lambda e: _unknown_field(e["loc"]),
    "literal_error": lambda e: f"{e['input']!r} is not one of {e['ctx']['expected']}",
    "string_pattern_mismatch": lambda e: _mismatch(e["input"], e["ctx"]["pattern"]),
    "too_short": lambda e: f"it needs {e['ctx']['min_length']} or more (it has {len(e['input'])})",
    "too_long": lambda e: f"it may have {e['ctx']['max_length']} at most (it has {len(e['input'])})",
    "value_error": lambda e: e["msg"].removeprefix("Value error, "),
}
"""What pydantic's errors mean to the author of a manifest, where its own words do not say it well."""


def _mismatch(value: object, pattern: str) -> str:
    if pattern == WORD_PATTERN:
        return f"{value!r} is blank, or begins or ends with a blank: remove that"
    return f"{value!r} does not match {pattern}"


def _short(value: object) -> str:
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'a map'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _unknown_field(location: tuple[str | int, ...]) -> str:
    known = _fields_at(LabeledDataset, location[:-1])
    nearest = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    if nearest:
        return f"there is no such field; did you mean {nearest[0]!r}?"
    return f"there is no such field; there are {', '.join(known)}" if known else "there is no such field"


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the names of the fields of the model that a location leads to."""
    here: object = model
    for part in location:
        if isinstance(part, int):
            here = _model_in(here)
            continue
        fields = getattr(_model_in(here), "model_fields", {})
        found = [field for name, field in fields.items() if part in (field.alias, name)]
        if not found:
            return []
        here = found[0].annotation
    fields = getattr(_model_in(here), "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _model_in(annotation: object) -> object:
    """Return the model inside an annotation: of `list[Stage]`, `S3 | None`, `Annotated[…]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, dict, Union, types.UnionType):
        for inner in get_args(annotation):
            if (found := _model_in(inner)) is not None:
                return found
    return None
