"""Models in container images, as a pod finds them: in folders that `DIFFUGEN_MODEL_IMAGES` names by the digests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffugen_api.plan import SpecError
from diffugen_generator.cli import app
from diffugen_generator.models.resolve import resolve
from diffugen_generator.models.side_models import detectors_of
from diffugen_generator.models.small_files import open_file
from diffugen_generator.planning.plan import plan
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import an_order, planned_shards
from tests.generator.single_files import write_file, write_folder
from tests.generator.test_cli import a_manifest

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"
IMAGE = f"oci://registry.example.com/org/sd15:v1@{DIGEST}"
FIELD = "spec.stages[0].txt2img.model"
SHAPES = resolve("builtin://shapes").path


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of an image, where a pod has it."""
    root = tmp_path / "mounted"
    root.mkdir()
    monkeypatch.setenv("DIFFUGEN_MODEL_IMAGES", f"{OTHER}=/nowhere,{DIGEST}={root}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return root


def refusal(uri: str) -> str:
    with pytest.raises(SpecError) as refused:
        resolve(uri, field=FIELD)
    assert refused.value.reason == "UnknownModel"
    return str(refused.value)


def test_a_model_in_an_image_has_the_digest_of_the_same_files_elsewhere(mounted: Path) -> None:
    shutil.copytree(SHAPES, mounted / "models" / "shapes")

    found = resolve(f"{IMAGE}#/models/shapes", field=FIELD, weights=False)

    assert found.digest == resolve("builtin://shapes").digest
    assert found.uri == f"{IMAGE}#/models/shapes"
    assert found.path == mounted / "models" / "shapes"


def test_a_model_may_be_the_root_of_its_image(mounted: Path) -> None:
    shutil.copytree(SHAPES, mounted, dirs_exist_ok=True)

    assert resolve(IMAGE).digest == resolve(f"{IMAGE}#/").digest == resolve("builtin://shapes").digest


def test_checkpoints_in_an_image_are_found_by_name_or_as_the_only_one(mounted: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", "2-v")
    write_file(mounted / "dream.safetensors", folder, "2-v")

    named = resolve(f"{IMAGE}#/dream.safetensors#v_prediction", field=FIELD)

    assert named.uri == f"{IMAGE}#/dream.safetensors#v_prediction"
    assert named.digest == resolve(f"{mounted}/dream.safetensors#v_prediction").digest
    assert resolve(named.uri).digest == named.digest, "a stage resolves the address that the plan found"
    with pytest.raises(SpecError, match=re.escape(f"{IMAGE}#/dream.safetensors")):
        resolve(IMAGE)  # found, and refused because it does not say what it predicts


def test_files_that_go_with_a_model_are_read_from_images_too(mounted: Path) -> None:
    (mounted / "words").mkdir()
    (mounted / "words" / "x.safetensors").write_bytes(b"vectors")

    uri, path, _ = open_file(f"{IMAGE}#/words/x.safetensors", field="f")

    assert (uri, path.read_bytes()) == (f"{IMAGE}#/words/x.safetensors", b"vectors")
    with pytest.raises(SpecError, match="^f: there is no file .*; append #/FILE, its path"):
        open_file(f"{IMAGE}#/words", field="f")


def test_a_detector_is_read_from_an_image(mounted: Path) -> None:
    shutil.copytree(SHAPES.parent / "shapes-segmenter", mounted / "segmenter")
    from_image, builtin = (
        {"type": "transformers", "model": uri} for uri in (f"{IMAGE}#/segmenter", "builtin://shapes-segmenter")
    )

    one, other = (
        an_order("builtin://shapes", labeling={"detector": each}).spec.labeling for each in (from_image, builtin)
    )

    assert one.detector is not None
    assert other.detector is not None
    assert detectors_of(one.detector)["detector"].digest == detectors_of(other.detector)["detector"].digest


def test_a_plan_and_its_stages_read_the_image(mounted: Path, tmp_path: Path) -> None:
    shutil.copytree(SHAPES, mounted / "shapes")
    ids = []
    for number, model in enumerate((f"{IMAGE}#/shapes", "builtin://shapes")):
        order = an_order(model, prompts={"templates": ["a ball"]})
        store = FolderStore(tmp_path / str(number))
        plan(order, store)
        headers: list[ShardHeader] = []
        for header, rows in planned_shards(order, store):
            headers.append(header)
            ids.append([row.sample.id for row in rows])
        assert [header.model for header in headers] == [model]
        session = SessionCache(device="cpu").open(headers[0])
        assert session is not None

    assert ids[0] == ids[1], "moving a model into an image draws nothing again"


def test_an_image_that_is_not_mounted_is_refused_with_what_to_give_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFUGEN_MODEL_IMAGES", raising=False)

    assert refusal(f"{IMAGE}#/sd15") == (
        f"{FIELD}: '{IMAGE}#/sd15' is in an image, which only the pods of a cluster have; give a folder, hf://ORG/NAME "
        f"or s3://BUCKET/FOLDER here, or unpack the image and set DIFFUGEN_MODEL_IMAGES={DIGEST}=FOLDER."
    )


def test_a_path_that_the_image_lacks_is_named(mounted: Path) -> None:
    assert refusal(f"{IMAGE}#/sd15") == (
        f"{FIELD}: the image registry.example.com/org/sd15@{DIGEST} has no '/sd15' (there is no {mounted}/sd15); write "
        "the path from the root of the image after '#'."
    )


def test_an_address_without_a_digest_is_refused_on_the_command_line_too() -> None:
    assert "has no digest, and a tag can be moved" in refusal("oci://registry.example.com/org/sd15:v1")


def test_a_manifest_with_an_image_is_valid_without_the_image(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(a_manifest(tmp_path, f"{IMAGE}#/sd15"))])

    assert result.exit_code == 0, result.output
