"""All tensors of a stage are on its device: a stage runs on a pretended GPU, which refuses tensors left on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from diffugen_api.orders import WorkOrder
from diffugen_api.v1alpha1 import AttentionLabeling, DetectorLabeling, ObjectClass, in_graph_order
from diffugen_api.words import Vocabulary
from diffugen_generator.calibration import background_token
from diffugen_generator.calibration.calibrate import Calibrating, calibrate
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.unet import prediction
from diffugen_generator.families.unet.components import load
from diffugen_generator.inversion.training import Training
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.labeling.detectors.opening import open_detector
from diffugen_generator.labeling.detectors.yolo import import_ultralytics
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.resolve import resolve
from diffugen_generator.models.side_models import detectors_of
from diffugen_generator.planning.plan import plan
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.folder import FolderStore
from tests.generator import tiny_detectors
from tests.generator.calibration.test_calibration import CLASSES, FIELD, SIZE, annotated
from tests.generator.conftest import write_pipeline
from tests.generator.graphs import a_box, an_order, base, label, redrawn, repainted, shards_of
from tests.generator.inversion.trainings import a_model, settings, some_images
from tests.generator.models.test_loras import a_lora
from tests.generator.pipelines import write_shape
from tests.generator.pretended_device import CUDA, a_pretended_gpu
from tests.generator.yolo_weights import NETWORK

MAPS = [
    {"refine": True, "rescale": True, "minPresence": 0.001},
    {"refine": True, "capture": "inline", "minPresence": 0.001},
]


FEW = {
    "templates": ["a {object} on {place}"],
    "variables": {"object": ["ball", "star"], "place": ["snow"]},
    "samplesPerPrompt": 1,
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Everything in a test runs with the pretended GPU."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "pretended")
    with a_pretended_gpu() as device:
        yield device


def draw(order: WorkOrder, store: FolderStore) -> int:
    """Draw and label every stage on the GPU; return how many images were labeled."""
    plan(order, store)
    sessions = SessionCache(device="cuda", batch_size=2, dtype="float32")
    labeled = 0
    for stage in in_graph_order(order.spec.stages):
        for header, rows in shards_of(order, store, stage.name):
            labeled += run_shard(header, rows, store, sessions=sessions).labelled
            for row in rows if stage.name == "base" else ():
                label(store, header, row.sample, a_box(8, 8, 40, 40))
    return labeled


@pytest.mark.parametrize("attention", MAPS, ids=["posthoc", "inline"])
@pytest.mark.parametrize("shape", ["sd1", "xl"])
def test_drawing_redrawing_inpainting_and_attention(tmp_path: Path, shape: str, attention: dict[str, Any]) -> None:
    model = str(write_shape(tmp_path / shape, shape))
    stages = [base(model, scheduler="euler_a"), redrawn("again", "base"), repainted("new", "base")]

    assert draw(an_order(stages, prompts=FEW, labeling={"attention": attention}), FolderStore(tmp_path / "store")) > 4


def test_stable_diffusion_2_with_a_lora_and_attention(tmp_path: Path) -> None:
    model = write_shape(tmp_path / "sd2", "sd2")
    lora = a_lora(resolve(str(model)), tmp_path / "lora.safetensors")  # of the UNet and of the text encoder
    stages = [base(str(model), loras=[{"uri": lora, "weight": 0.1}])]

    assert draw(an_order(stages, prompts=FEW, labeling={"attention": MAPS[0]}), FolderStore(tmp_path / "store")) == 2


def test_a_model_made_for_inpainting(tmp_path: Path, tiny_folder: Path) -> None:
    inpainting = str(write_pipeline(tmp_path / "inpainting", channels=9))
    stages = [base(str(tiny_folder)), repainted("new", "base", model=inpainting)]

    assert draw(an_order(stages, prompts=FEW, labeling={"attention": {}}), FolderStore(tmp_path / "store")) > 2


def test_scores_of_images(tmp_path: Path, tiny_folder: Path) -> None:
    clip, checker = tiny_detectors.clip(tmp_path / "clip"), tiny_detectors.safety_checker(tmp_path / "checker")
    quality = {"minInstances": 0, "clipScore": {"model": str(clip), "min": 0}, "safety": {"model": str(checker)}}

    assert draw(an_order([base(str(tiny_folder))], quality=quality), FolderStore(tmp_path / "store")) == 4


@pytest.mark.parametrize("kind", ["mask2former", "rf_detr", "grounding_dino", "owlv2"])
def test_detectors(tmp_path: Path, gpu: torch.device, kind: str) -> None:
    finder = getattr(tiny_detectors, kind)(tmp_path / kind)
    given: dict[str, Any] = {"type": "transformers", "model": str(finder)}
    if kind in {"grounding_dino", "owlv2"}:
        given |= {"type": "open-vocabulary", "maskModel": str(tiny_detectors.sam2(tmp_path / "sam2"))}
    chosen = DetectorLabeling.model_validate(given)
    image = np.random.default_rng(0).integers(0, 255, (40, 72, 3), dtype=np.uint8)

    detector: Any = open_detector(chosen, detectors_of(chosen), [ObjectClass(name="ball")], gpu)

    assert len(detector.look([LabelInput(image, "a ball", 0)] * 2)) == 2


def test_an_ultralytics_detector(tmp_path: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library asks CUDA itself for the device, so that is pretended, too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    about = SimpleNamespace(name="pretended", total_memory=1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    monkeypatch.setattr(torch.Tensor, "type_as", lambda self, other: self.to(other))  # the type includes the device
    file = a_yolo(tmp_path)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    chosen = DetectorLabeling(type="yolo", model=str(file), sha256=sha256)
    image = np.random.default_rng(0).integers(0, 255, (40, 72, 3), dtype=np.uint8)

    detector: Any = open_detector(chosen, detectors_of(chosen), [ObjectClass(name="ball")], gpu)
    found = detector.look([LabelInput(image, "a ball", 0)] * 2)

    assert {each.device for each in detector._model.predictor.model.model.parameters()} == {CUDA}
    assert all(each.found for each in found)


def a_yolo(folder: Path) -> Path:
    """Write an untrained Ultralytics network whose biases make it find objects with masks everywhere."""
    description, file = folder / "tiny-seg.yaml", folder / "yolo.pt"
    description.write_text(NETWORK)
    torch.manual_seed(0)
    made = import_ultralytics().YOLO(str(description), task="segment")
    head = made.model.model[-1]
    for scores, coefficients in zip(head.cv3, head.cv4, strict=True):
        scores[-1].bias.data.fill_(0)  # a probability of about 1/2
        coefficients[-1].bias.data.fill_(1)
    head.proto.cv3.bn.bias.data.fill_(1)  # a mask is where the sum of prototypes times coefficients is above 0
    made.save(file)
    return file


@pytest.mark.parametrize("capture", ["posthoc", "inline"])
def test_calibration(
    tmp_path: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch, capture: Literal["posthoc", "inline"]
) -> None:
    monkeypatch.setattr(background_token, "STEPS", 2)
    monkeypatch.setattr(Calibrating, "_token", lambda self, _, readings, __: self._training.train(readings))
    places = {"images": "/images", "masks": "/masks", "backgroundToken": capture == "posthoc"}
    attention = AttentionLabeling.model_validate({"capture": capture, "calibration": places})
    model = load(resolve(str(write_shape(tmp_path / "sd1", "sd1"))), gpu, dtype="float32")
    texts, vocabulary = TextStates(model), Vocabulary({each.name: each.words for each in CLASSES})
    images = annotated().opened(CLASSES, SIZE, field=FIELD)

    found = calibrate(model, texts, vocabulary, images, attention)

    assert 0 <= found.before <= found.after <= 1
    if capture == "posthoc":
        labeler = PosthocAttention(model, texts, vocabulary, refine=True, token=texts.conditioning([""]).states[0, 0])
        assert len(labeler.look([LabelInput(each.pixels, each.caption, 1) for each in images])) == len(images)


@pytest.mark.parametrize("shape", ["sd1", "xl"])
def test_training_of_a_word(tmp_path: Path, gpu: torch.device, shape: str) -> None:
    components = load(resolve(str(write_shape(tmp_path / shape, shape))), gpu, dtype="float32")
    chosen = settings(vectors=2, steps=3)
    model = a_model(components, chosen)

    training = Training(model, some_images(), chosen)
    state = training.run(training.begin())

    assert state.step == 3
    assert {each.device for each in model.vectors} == {CUDA}


@pytest.mark.parametrize("fault", ["the conditioning", "the noise", "a loss mask"])
def test_a_tensor_that_is_left_on_the_cpu_is_refused(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "the conditioning":
        begin = prediction.UNetPredictor.__init__

        def left_behind(self: Any, components: Any, conditioning: Any, **more: Any) -> None:
            begin(self, components, type(conditioning)(conditioning.states.cpu(), conditioning.pooled), **more)

        monkeypatch.setattr(prediction.UNetPredictor, "__init__", left_behind)
    elif fault == "the noise":
        from diffugen_generator.diffusion import drawing

        noise = drawing.Drawer._noise
        monkeypatch.setattr(drawing.Drawer, "_noise", lambda self, *given: noise(self, *given).cpu())
    else:
        from diffugen_generator.diffusion import denoise_paths

        mask = denoise_paths._latent_mask
        monkeypatch.setattr(
            denoise_paths, "_latent_mask", lambda *given: None if (it := mask(*given)) is None else it.cpu()
        )
    stages = [base(str(tiny_folder)), repainted("new", "base")]

    with pytest.raises(Exception, match="on one device, and found cuda and cpu"):
        draw(an_order(stages, labeling={"attention": {}}), FolderStore(tmp_path / "store"))
