"""The manifest has all that is needed to draw an image again, and the dataset card what users need to know."""

from __future__ import annotations

import gzip
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from threading import Event

import pytest

from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.commands.run import run
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.models.model_cards import license_in
from diffugen_generator.publishing import manifest
from diffugen_generator.publishing.publish import publish
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.terminal import open_console
from tests.generator.made import a_finished_store, a_model, an_order, manifest_lines


def test_a_line_has_the_number_type_the_device_and_the_versions(tiny_model: ModelFolder, tmp_path: Path) -> None:
    order = an_order(
        str(tiny_model.path),
        prompts={"templates": ["a red ball++"], "samplesPerPrompt": 2},
        quality={"minInstances": 0},
        output={"formats": ["coco"], "splits": {"train": 1}},
    )
    store = FolderStore(tmp_path / "store")

    run(order, store, PlainDisplay(open_console(stderr=True)), device="cpu", stop=Event())

    libraries = {name: version(name) for name in ("torch", "diffusers", "diffugen")}
    for line in manifest_lines(store, order.revision):
        assert (line["dtype"], line["device"], line["versions"]) == ("float32", "cpu", libraries)
        assert line["model"] == str(tiny_model.path)
        assert line["weights"] == [["a red ", 1.0], ["ball", pytest.approx(1.21)]]
        assert line["drawing"]["settings"]["steps"] == 20
        assert len(line["imageSha256"]) == 64


def test_rejected_samples_keep_the_digest_of_their_image(tmp_path: Path) -> None:
    order = an_order(
        a_model(tmp_path / "model"),
        prompts={"templates": ["a ball"], "samplesPerPrompt": 12},
        quality={"minInstances": 2},
    )
    store = a_finished_store(order, tmp_path / "store")
    for key in [key for key in store.list("samples/") if key.endswith("recipe.json")]:
        image = store.read(key.replace("recipe.json", "image.png"))
        recipe = {"imageSha256": hashlib.sha256(image).hexdigest(), "dtype": "bfloat16"}
        store.write(key, json.dumps(recipe).encode())
    publish(order, store)

    lines = manifest_lines(store, order.revision)

    assert {line["accepted"] for line in lines} == {True, False}
    for line in lines:
        assert line["imageSha256"] == hashlib.sha256(store.read(line["image"])).hexdigest()
        assert line["dtype"] == "bfloat16"


def test_lines_that_are_compressed_together_give_the_bytes_of_single_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = an_order(a_model(tmp_path / "model"), prompts={"templates": ["a ball"], "samplesPerPrompt": 40})
    found = []
    for together in (1, 3000, manifest._TOGETHER):
        monkeypatch.setattr(manifest, "_TOGETHER", together)
        store = a_finished_store(order, tmp_path / f"store{together}")
        publish(order, store)
        found.append(store.read(f"revisions/{order.revision}/manifest.jsonl.gz"))

    assert found[0] == found[1] == found[2]
    assert len(gzip.decompress(found[0]).splitlines()) == 40


@pytest.mark.parametrize(
    ("card", "stated"),
    [
        ("---\nlicense: creativeml-openrail-m\n---\n# A model\n", "creativeml-openrail-m"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense: other\nlicense_name: stabilityai-community\n---\n", "stabilityai-community"),
        ("---\ntags: [x]\n---\n", ""),
        ("---\nlicense: [\n---\n", ""),
        ("---\nlicense: mit\n", ""),
        ("# license: mit\n", ""),
        ("", ""),
    ],
)
def test_the_license_is_read_from_the_head_of_a_models_card(card: str, stated: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card)

    assert license_in(tmp_path) == stated
    assert license_in(tmp_path / "nothing") == ""


def test_the_card_has_licenses_use_and_limits(tmp_path: Path) -> None:
    model = a_model(tmp_path / "model")
    (Path(model) / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
    order = an_order(model, prompts={"templates": ["a ball"], "samplesPerPrompt": 3})
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)

    card = store.read(f"revisions/{order.revision}/README.md").decode()

    assert "| creativeml-openrail-m |" in card
    assert "To train and evaluate models that detect or segment ball, square, triangle and star" in card
    for heading in ("## Intended use and limits", "## License", "## Loading", "### COCO", "### YOLO"):
        assert heading in card


def test_a_model_whose_card_states_no_license_is_not_given_one(tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"), prompts={"templates": ["a ball"], "samplesPerPrompt": 3})
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)

    assert "| not stated |" in store.read(f"revisions/{order.revision}/README.md").decode()
