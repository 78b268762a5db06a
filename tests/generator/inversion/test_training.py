"""Only the new vectors are trained, their norm stays near the vocabulary's, and resuming gives the same result."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffugen_generator.families.token_training import NormRange
from diffugen_generator.inversion.checkpoints import dumps, loads
from diffugen_generator.inversion.images import TrainingImage
from diffugen_generator.inversion.loss_masks import masks_of
from diffugen_generator.inversion.training import Training, TrainingState, plateaued
from tests.generator.inversion.trainings import a_model, components_of, numbers_of, settings, some_images


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("shape", ["sd1", "sd2", "xl"])
def test_only_the_new_vectors_change_and_the_loss_falls(tmp_path: Path, shape: str) -> None:
    components = components_of(tmp_path, shape)
    before = numbers_of(components)
    model = a_model(components, settings(vectors=2, steps=30))
    starts = [each.detach().clone() for each in model.vectors]

    state = Training(model, some_images(), settings(vectors=2, steps=30)).begin()
    first = state.evaluations[0][1]
    state = Training(model, some_images(), settings(vectors=2, steps=30)).run(state)
    model.close()

    assert len(starts) == (2 if shape == "xl" else 1)
    assert all((one != other).any(dim=1).all() for one, other in zip(starts, state.vectors, strict=True))
    after = numbers_of(components)
    assert after.keys() == before.keys(), "the look-up is the model's own again"
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert state.best_loss < first


def test_the_optimizer_keeps_two_numbers_per_trained_number(tmp_path: Path) -> None:
    components = components_of(tmp_path)
    model = a_model(components, settings(vectors=2))
    kept: list[TrainingState] = []

    Training(model, some_images(), settings(vectors=2, steps=1)).run(
        Training(model, some_images(), settings(vectors=2)).begin(), kept.append
    )

    trained = sum(each.numel() for each in model.vectors)
    assert sum(part.numel() for pair in kept[0].moments for part in pair) == 2 * trained
    networks = (each.network for each in components.encoders)
    frozen = [p for network in (*networks, components.unet, components.vae) for p in network.parameters()]
    trainable = [parameter for parameter in frozen if parameter.requires_grad]
    assert [tuple(each.shape) for each in trainable] == [(2, 32)], "the spliced vectors, and nothing else"


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"flip": True, "vectors": 2}], ids=str)
def test_a_resumed_training_takes_the_same_steps(tmp_path: Path, changes: dict[str, object]) -> None:
    chosen = settings(**changes)
    components = components_of(tmp_path)
    model = a_model(components, chosen)
    whole = Training(model, some_images(), chosen).run(Training(model, some_images(), chosen).begin())
    model.close()

    model = a_model(components, chosen)
    training = Training(model, some_images(), chosen)
    saved = b""

    def stop_at_half_time(state: TrainingState) -> None:
        nonlocal saved
        if state.step == 6:
            saved = dumps(state, "address")
            raise StoppedError

    with pytest.raises(StoppedError):
        training.run(training.begin(), stop_at_half_time)
    model.close()

    model = a_model(components, chosen)
    found = loads(saved, "address", model.vectors)
    assert found is not None
    assert found.step == 6
    resumed = Training(model, some_images(), chosen).run(found)

    assert all(torch.equal(one, other) for one, other in zip(whole.best, resumed.best, strict=True))
    assert (resumed.losses, resumed.evaluations) == (whole.losses, whole.evaluations)


def test_a_checkpoint_of_another_training_or_a_broken_one_is_not_resumed(tmp_path: Path) -> None:
    model = a_model(components_of(tmp_path))
    data = dumps(Training(model, some_images(), settings()).begin(), "one")

    assert loads(data, "other", model.vectors) is None
    assert loads(data, "one", model.vectors) is not None
    for damaged in (data[:40], b"", data[:-1]):
        with pytest.raises(ValueError, match="not a checkpoint"):
            loads(damaged, "one", model.vectors)
    with pytest.raises(ValueError, match=r"vectors is not \[9, 32\] finite numbers"):
        loads(data, "one", [model.vectors[0].new_zeros(9, 32)])


def test_another_seed_takes_other_steps(tmp_path: Path) -> None:
    model = a_model(components_of(tmp_path))

    def losses(seed: int) -> list[float]:
        training = Training(model, some_images(), settings(seed=seed, steps=2, learning_rate=1e-9))
        return training.run(training.begin()).losses

    assert losses(1) == pytest.approx(losses(1))
    assert losses(1) != pytest.approx(losses(2))


def test_norms_stay_in_the_vocabularys_range(tmp_path: Path) -> None:
    model = a_model(components_of(tmp_path))

    state = Training(model, some_images(), settings(learning_rate=1.0)).run(
        Training(model, some_images(), settings()).begin()
    )

    norms = model.norms[0]
    assert all(norms.low - 1e-5 <= float(length) <= norms.high + 1e-5 for length in state.vectors[0].norm(dim=1))


def test_the_range_is_two_deviations_around_the_mean() -> None:
    table = torch.eye(4)[:2] * torch.tensor([[1.0], [3.0]])

    norms = NormRange.of(table)

    assert (norms.low, norms.high) == pytest.approx((0.0, 2 + 2 * 2**0.5))


def test_pixels_outside_the_mask_do_not_count(tmp_path: Path) -> None:
    model = a_model(components_of(tmp_path))
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    sentence, steps = model.sentences(["a <piano>"]), torch.tensor([400])
    half = np.zeros((64, 64), np.bool_)
    half[:, :32] = True
    masks = masks_of([half], (16, 16))
    assert masks is not None

    with torch.no_grad():
        left = model.loss(latents, noise, steps, sentence, masks)
        right = model.loss(latents, noise, steps, sentence, 1 - masks)
        whole = model.loss(latents, noise, steps, sentence)

    assert float((left + right) / 2) == pytest.approx(float(whole), rel=1e-5)
    assert abs(float(left - right)) > 1e-4


def test_masks_change_the_loss(tmp_path: Path) -> None:
    components = components_of(tmp_path)

    def first_loss(mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]] | None) -> float:
        images = [TrainingImage(each.name, each.pixels, mask) for each in some_images()]
        model = a_model(components)
        loss = Training(model, images, settings()).begin().evaluations[0][1]
        model.close()
        return loss

    corner = np.zeros((64, 64), np.bool_)
    corner[:16, :16] = True
    assert first_loss(None) == pytest.approx(first_loss(np.ones((64, 64), np.bool_)))
    assert first_loss(corner) != pytest.approx(first_loss(None), rel=1e-5)


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([1.0, 0.9, 0.9, 0.9], 2, True),
        ([1.0, 0.9, 0.9, 0.8], 2, False),
        ([1.0, 0.9, 0.8999, 0.8999], 2, True),
        ([1.0, 1.0], 2, False),
        ([1.0] * 9, 0, False),
    ],
)
def test_training_stops_when_evaluations_stop_improving(losses: list[float], patience: int, expected: bool) -> None:
    assert plateaued(losses, patience) is expected


def test_a_training_without_progress_ends_early_with_its_best_vectors(tmp_path: Path) -> None:
    model = a_model(components_of(tmp_path))
    chosen = settings(steps=200, learning_rate=1e-12, patience=2)

    state = Training(model, some_images(), chosen).run(Training(model, some_images(), chosen).begin())

    assert (state.step, state.plateaued) == (20, True)
