"""Every kind of file that the programs read, each with real contents, and with what reads it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import save

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion
from diffugen_api.prompts import templates_of
from diffugen_api.v1alpha1 import Lora
from diffugen_generator.calibration.result import Calibration
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.commands.import_config import import_config
from diffugen_generator.commands.run import run
from diffugen_generator.deletion import delete
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.registry import family_of
from diffugen_generator.importers.manifest_draft import Options
from diffugen_generator.inversion import checkpoints
from diffugen_generator.inversion.local import read_card
from diffugen_generator.inversion.result_names import CARD
from diffugen_generator.inversion.training import TrainingState
from diffugen_generator.labeling.decide.from_attention import decision_of
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.labeling.evidence.scores import Fit
from diffugen_generator.models.embeddings import open_embedding
from diffugen_generator.models.loras import find_loras
from diffugen_generator.models.model_cards import license_in
from diffugen_generator.planning.plan import stages_of
from diffugen_generator.planning.prompt_files import rows_of
from diffugen_generator.planning.summary import read_summary
from diffugen_generator.publishing.history import kept_folders, pointer_before
from diffugen_generator.publishing.published import current_of, dataset_of, files_of, folder_of
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.samples import image_files
from diffugen_generator.samples.documents import checked
from diffugen_generator.samples.labels import read_label
from diffugen_generator.samples.recipes import read_image_file, read_recipe
from diffugen_generator.samples.shards import read_shard
from diffugen_generator.stages.sample_store import SampleStore, decoded
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.worker import read_order
from tests.generator.fuzz.damage import Change, changed_bytes, changed_json, in_header, in_lines, in_text_lines, in_zip
from tests.generator.graphs import an_order, base, samples_of_stage, shards_of
from tests.generator.importers.configs import SUPERVISED

ADDRESS = "a" * 32


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    data: bytes
    read: Callable[[bytes], object]
    """Reads damaged contents as the programs do."""
    change: Change
    cases: int = 60


class OneFileStore(FolderStore):
    """A store in which one file has other contents."""

    key = ""
    data = b""

    def read(self, key: str) -> bytes:
        return self.data if key == self.key else super().read(key)

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        return iter([self.data[offset:]]) if key == self.key else super().stream(key, offset)

    def exists(self, key: str) -> bool:
        return key == self.key or super().exists(key)

    def write(self, key: str, data: bytes, content_type: str = "") -> None:
        """Keep what is on the disk."""

    def delete(self, keys: Any) -> None:
        """Keep what is on the disk."""


@dataclass
class Files:
    """A published dataset of the tiny model, and single files."""

    folder: Path
    model: Path
    order: WorkOrder = field(init=False)
    store: OneFileStore = field(init=False)

    def __post_init__(self) -> None:
        self.order = an_order([base(str(self.model))], output={"formats": ["coco"]})
        store = FolderStore(self.folder / "store")
        run(self.order, store, PlainDisplay(Console(file=io.StringIO())), device="cpu", stop=Event())
        self.store = OneFileStore(store.root)

    def kinds(self) -> Iterator[Kind]:
        yield from self._of_the_store()
        yield from self._of_models()
        yield from self._alone()

    def _of_the_store(self) -> Iterator[Kind]:
        order, store = self.order, self.store
        revision = order.revision
        sample = samples_of_stage(order, store, "base")[0]
        [(header, _)] = shards_of(order, store, "base")
        samples = SampleStore(header, store)
        pointer = current_of(store)
        published = folder_of(pointer)
        key_of_evidence = layout.evidence("base", header.evidence_id, sample.id)
        key_of_label = layout.label("base", header.label_id, sample.id)
        image = image_files.decode(store.read(layout.image("base", sample.id, "png")))
        stored = [
            (layout.recipe("base", sample.id), changed_json, lambda: read_recipe(store, "base", sample.id)),
            (layout.recipe("base", sample.id), changed_json, lambda: read_image_file(store, "base", sample.id, "png")),
            (key_of_label, changed_json, lambda: read_label(store, key_of_label, sample.id, size=(64, 64))),
            (
                key_of_evidence,
                in_zip,
                lambda: [
                    decision_of(found, image, header.attention)
                    for found in [samples.findings(sample).attention]
                    if found is not None and header.attention is not None
                ],
            ),
            (layout.shard(revision, "base", 0), in_lines, lambda: read_shard(store, store.key)),
            (layout.plan_summary(revision), changed_json, lambda: read_summary(store, revision)),
            (layout.plan_summary(revision), changed_json, lambda: delete(order, store)),
            (layout.CURRENT, changed_json, lambda: kept_folders(pointer_before(store)[0])),
            (layout.CURRENT, changed_json, lambda: dataset_of(store)),
            (
                layout.dataset_card(published),
                changed_json,
                lambda: list(files_of(store, published, dataset_of(store))),
            ),
            (
                f"{published}manifest.jsonl.gz",
                in_lines,
                lambda: list(PublishedDataset(store, published, dataset_of(store)).samples()),
            ),
        ]
        for key, change, read in stored:
            yield Kind(key, store.read(key), self._in_store(key, read), change)
        image_key = layout.image("base", sample.id, "png")
        yield Kind(
            "image", store.read(image_key), lambda data: decoded(header, "base", sample.id, data), changed_bytes, 100
        )
        Calibration({"a.b": (0.5, 0.5)}).write(FolderStore(store.root), ADDRESS)
        key = layout.calibration(ADDRESS)
        yield Kind(key, store.read(key), self._in_store(key, lambda: Calibration.read(store, ADDRESS)), changed_json)

    def _in_store(self, key: str, read: Callable[[], object]) -> Callable[[bytes], object]:
        def attempt(data: bytes) -> object:
            self.store.key, self.store.data = key, data
            return read()

        return attempt

    def _of_models(self) -> Iterator[Kind]:
        spec = self.order.spec

        def plan_with(path: Path, data: bytes) -> object:
            before = path.read_bytes()
            path.write_bytes(data)
            try:
                [found] = stages_of(Expansion(spec))
                return family_of(found.model.pipeline).vocabulary(found.model.path)
            finally:
                path.write_bytes(before)

        for name in (
            "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
            "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json",
        ):  # fmt: skip
            path = self.model / name
            if path.is_file():
                yield Kind(name, path.read_bytes(), partial(plan_with, path), changed_json, 100)
        weights = self.model / "text_encoder" / "model.safetensors"
        yield Kind("safetensors", weights.read_bytes(), partial(plan_with, weights), in_header, 60)

    def _alone(self) -> Iterator[Kind]:
        folder, model = self.folder, ModelFolder(str(self.model), self.model, "0" * 64)
        vectors = torch.arange(64, dtype=torch.float32).reshape(2, 32)

        def embedding(suffix: str) -> Callable[[bytes], object]:
            path = folder / f"word{suffix}"

            def read(data: bytes) -> object:
                path.write_bytes(data)
                return open_embedding(path, "<gem>", model, field="embeddings[0]")

            return read

        words: dict[str, Any] = {"<gem>": vectors}
        a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "gem", "step": 5}
        for content in (words, a1111):
            yield Kind("embedding .pt", _saved(content), embedding(".pt"), in_zip, 100)
            yield Kind("embedding .bin, legacy", _saved(content, legacy=True), embedding(".bin"), changed_bytes, 200)
        yield Kind("embedding .safetensors", save(words), embedding(".safetensors"), in_header, 100)

        def lora(data: bytes) -> object:
            (folder / "lora.safetensors").write_bytes(data)
            named = {"loras[0]": Lora(uri=str(folder / "lora.safetensors"), weight=1.0)}
            return find_loras(named, model, None)

        part = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora"
        matrices = {f"{part}_A.weight": torch.zeros(2, 32), f"{part}_B.weight": torch.zeros(32, 2)}
        yield Kind("LoRA", save(matrices), lora, in_header, 100)

        one, two, three, four = (vectors.clone() for _ in range(4))
        state = TrainingState(3, [one], [two], [(three, four)], [0.5], [(1, 0.4)], plateaued=False)
        yield Kind(
            "checkpoint",
            checkpoints.dumps(state, ADDRESS),
            lambda data: checked("checkpoint", lambda: checkpoints.loads(data, ADDRESS, [vectors])),
            in_header,
            100,
        )

        def card(data: bytes) -> object:
            (folder / CARD).write_bytes(data)
            found = read_card(folder)
            return found is not None and found.get("address")

        yield Kind("card of a training", json.dumps({"address": ADDRESS, "steps": 3}).encode(), card, changed_json)

        def model_card(data: bytes) -> object:
            (folder / "README.md").write_bytes(data)
            return license_in(folder)

        text = b"---\nlicense: [mit, openrail]\ntags: &a [x]\nmore: [*a, *a]\ndate: 2024-01-01\n---\n# Model\n"
        yield Kind("README.md of a model", text, model_card, changed_bytes, 150)

        def order(data: bytes) -> object:
            (folder / "order.json").write_bytes(data)
            return read_order(folder / "order.json", {})

        text = self.order.model_dump_json(by_alias=True).encode()
        yield Kind("work order", text, order, changed_json, 100)

        (folder / "seg").mkdir()
        (folder / "seg" / "boats-seg.pt").write_bytes(b"weights")
        (folder / "seg" / "names.txt").write_text("boat\ncanoe\nship\n")

        def config(data: bytes) -> object:
            (folder / "config.json").write_bytes(data)
            return import_config(folder / "config.json", Options(), folder)

        yield Kind("configuration of DiffuGen", json.dumps(SUPERVISED).encode(), config, changed_json, 100)

        spec = self.order.spec
        for name, text in (
            ("prompts.txt", b"a ball\n# no\n\na star on snow\n"),
            ("prompts.jsonl", b'{"prompt": "a ball"}\n{"object": "star", "place": "snow"}\n'),
            ("prompts.csv", b'object,place\nball,snow\n"star","sand, ""wet"""\n'),
        ):

            def prompts(data: bytes, path: Path = folder / name) -> object:
                path.write_bytes(data)
                return list(rows_of(path, path.name, spec, templates_of(spec)))

            yield Kind(name, text, prompts, in_text_lines if name.endswith("l") else changed_bytes, 60)

        masks = np.zeros((2, 64, 64), np.bool_)
        masks[:, 4:20, 8:30] = True
        detections = Detections.of(masks, ["ball", "star"], [0.9, 0.4])
        beside: tuple[Any, ...] = (detections, Fit(0.5), AttentionMaps(("ball",), (), np.zeros((1, 8, 8), np.uint8)))
        for each in beside:
            name = type(each).__name__
            yield Kind(name, each.dumps("0f"), _loading(type(each)), in_zip, 60)


def _loading(kind: Any) -> Callable[[bytes], object]:
    return lambda data: checked("evidence", lambda: kind.loads(data, "0f"))


def _saved(content: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()
