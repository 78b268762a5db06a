"""Textual inversion: all formats of files, which files are refused, and images equal to those of diffusers."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from diffugen_api import layout
from diffugen_api.plan import Expansion, SpecError
from diffugen_api.prompt_weights import Piece
from diffugen_api.words import Vocabulary, mentions
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.embedding import Embedding
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import load
from diffugen_generator.families.unet.tokens import PromptTokenizer
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.words import tokens_of
from diffugen_generator.models.embeddings import open_embedding, open_embeddings
from diffugen_generator.models.pickled_tensors import read_tensors
from diffugen_generator.models.resolve import resolve
from diffugen_generator.planning.plan import plan, stages_of
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import dataset_of
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.store.folder import FolderStore
from tests.generator.drawers import ImageDrawer
from tests.generator.made import an_order, manifest_lines, planned_shards
from tests.generator.pipelines import write_shape

CPU = torch.device("cpu")
SETTINGS = DrawingSettings(width=64, height=64, steps=3, guidance=3.0, negative="a star")
VECTORS = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
FIELD = "spec.stages[0].txt2img.embeddings[0]"


def saved(content: Any, path: Path, *, legacy: bool = False) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_pickle_of_tensors_is_read_as_torch_reads_it(tmp_path: Path, kind: torch.dtype, legacy: bool) -> None:
    content = {"string_to_param": {"*": VECTORS.to(kind).T[3:9]}, "name": "x", "step": 7, "parameter": VECTORS[0]}
    path = saved(content, tmp_path / "x.pt", legacy=legacy)

    ours, theirs = read_tensors(path), torch.load(path, weights_only=True)

    np.testing.assert_array_equal(
        ours["string_to_param"]["*"], theirs["string_to_param"]["*"].to(torch.float64).numpy()
    )
    np.testing.assert_array_equal(ours["parameter"], theirs["parameter"].numpy())
    assert (ours["name"], ours["step"]) == ("x", 7)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_are_read_as_torch_reads_them(tmp_path: Path, kind: torch.dtype) -> None:
    path = saved({"<x>": VECTORS.to(kind)}, tmp_path / "x.safetensors")

    np.testing.assert_array_equal(read_tensors(path)["<x>"], VECTORS.to(kind).float().numpy())


@pytest.mark.parametrize(
    ("content", "name", "count"),
    [
        ({"<piano>": VECTORS[0]}, "learned_embeds.safetensors", 1),
        ({"<any-name>": VECTORS}, "learned_embeds.bin", 3),
        ({"emb_params": VECTORS}, "a1111.safetensors", 3),
        ({"string_to_param": {"*": VECTORS}, "string_to_token": {"*": 265}, "name": "x"}, "a1111.pt", 3),
        (VECTORS, "raw.pt", 3),
        ({"<p>": torch.nn.Parameter(VECTORS)}, "parameter.pt", 3),
    ],
)
def test_files_of_diffusers_and_a1111_are_read(
    tiny_model: ModelFolder, tmp_path: Path, content: Any, name: str, count: int
) -> None:
    found = open_embedding(saved(content, tmp_path / name), "<piano>", tiny_model, field=FIELD)

    assert (found.token, found.count) == ("<piano>", count)
    np.testing.assert_array_equal(found.vectors[0], VECTORS[:count].numpy())


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/never",)


def test_a_pickle_with_more_than_tensors_is_refused(tiny_model: ModelFolder, tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"<x>": VECTORS, "more": _Evil()}, path)
    bare = tmp_path / "bare.bin"
    bare.write_bytes(pickle.dumps({"<x>": _Evil()}))

    for each in (path, bare):
        with pytest.raises(
            SpecError, match=r"embeddings\[0\]\.uri: .* is a pickle that names posix\.system.*safetensors"
        ):
            open_embedding(each, "<x>", tiny_model, field=FIELD)
    assert not Path("/tmp/never").exists()


@pytest.mark.parametrize(
    ("content", "token", "reason", "words"),
    [
        (
            {"<x>": torch.zeros(2, 48)},
            "<x>",
            "UnsupportedEmbedding",
            r"\.uri: x\.pt has vectors of 48 numbers where .* reads 32",
        ),
        ({"<x>": torch.zeros(40, 32)}, "<x>", "UnsupportedEmbedding", "has 40 vectors, and the text encoder reads 18"),
        ({"<y>": VECTORS, "<z>": VECTORS}, "<x>", "UnsupportedEmbedding", "holds 2 tensors"),
        ({"<x>": "nothing"}, "<x>", "UnsupportedEmbedding", "holds 0 tensors"),
        ({"<x>": torch.full((1, 32), float("nan"))}, "<x>", "UnsupportedEmbedding", "no list of vectors"),
        (
            {"<x>": VECTORS},
            "Ball",
            "TokenTaken",
            r"\.token: 'Ball' is a word that the model knows already; write another",
        ),
        ({"<x>": VECTORS}, "*", "TokenTaken", "knows already"),
    ],
)
def test_an_embedding_that_does_not_fit_the_model_is_refused(
    tiny_model: ModelFolder, tmp_path: Path, content: Any, token: str, reason: str, words: str
) -> None:
    path = saved(content, tmp_path / "x.pt")

    with pytest.raises(SpecError, match=words) as caught:
        open_embedding(path, token, tiny_model, field=FIELD)

    assert caught.value.reason == reason
    assert str(caught.value).startswith(FIELD)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:100], lambda data: b"", lambda data: b"\x80\x02garbage", lambda _: b"PK"]
)
def test_an_unreadable_file_is_refused(tiny_model: ModelFolder, tmp_path: Path, spoil: Any) -> None:
    path = saved({"<x>": VECTORS}, tmp_path / "x.safetensors")
    path.write_bytes(spoil(path.read_bytes()))

    with pytest.raises(SpecError, match=r"embeddings\[0\]\.uri: x\.safetensors (cannot be read|is a pickle)"):
        open_embedding(path, "<x>", tiny_model, field=FIELD)


def test_a_token_takes_one_position_per_vector_and_all_belong_to_its_word(tiny_model: ModelFolder) -> None:
    word = Embedding("<piano>", (VECTORS.numpy(),))
    tokenizer = PromptTokenizer(tiny_model, embeddings=[word])
    prompt = "a red <Piano> on snow, <piano>"

    read = tokenizer.read(prompt)

    learnt = [number for number in read.ids if number >= tokenizer.first_learnt]
    assert learnt == [tokenizer.first_learnt + n for n in (0, 1, 2)] * 2
    (mention, _) = mentions(prompt, Vocabulary({"piano": ["<piano>"]}))
    assert [read.ids[place] for place in tokens_of(mention, read.spans)] == learnt[:3]
    plain = PromptTokenizer(tiny_model).read(prompt)
    assert max(plain.ids) < tokenizer.first_learnt


def test_a_word_is_never_split_between_two_windows(tiny_model: ModelFolder) -> None:
    tokenizer = PromptTokenizer(tiny_model, embeddings=[Embedding("<piano>", (VECTORS.numpy(),))])

    read = tokenizer.read("ball " * 17 + "<piano>")

    first, second = read.ids[: tokenizer.limit], read.ids[tokenizer.limit :]
    assert read.windows == 2
    assert max(first) < tokenizer.first_learnt
    assert [number for number in second if number >= tokenizer.first_learnt] == [
        tokenizer.first_learnt + n for n in (0, 1, 2)
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_images_with_an_embedding_equal_those_of_diffusers(tiny_model: ModelFolder, tmp_path: Path, count: int) -> None:
    path = saved({"<piano>": VECTORS[0] if count == 1 else VECTORS}, tmp_path / "learned_embeds.safetensors")
    components = load(tiny_model, CPU, embeddings=[open_embedding(path, "<piano>", tiny_model, field=FIELD)])
    pipeline = DiffusionPipeline.from_pretrained(tiny_model.path)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_textual_inversion(path, token="<piano>")

    (ours,) = ImageDrawer(components, TextStates(components)).draw([DrawRequest("a red <piano> on snow", 5)], SETTINGS)
    (unlearnt,) = ImageDrawer(load(tiny_model, CPU), TextStates(load(tiny_model, CPU))).draw(
        [DrawRequest("a red <piano> on snow", 5)], SETTINGS
    )
    theirs = pipeline(
        "a red <piano> on snow",
        negative_prompt="a star",
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images[0]

    assert np.abs(ours / 255 - theirs).max() <= 2.5 / 255
    assert np.abs(ours.astype(int) - unlearnt).max() > 5


def test_both_encoders_of_xl_get_the_embedding(tmp_path: Path) -> None:
    model = resolve(str(write_shape(tmp_path / "xl", "xl")))
    wide = torch.randn(3, 40, generator=torch.Generator().manual_seed(2))
    path = saved({"clip_l": VECTORS, "clip_g": wide}, tmp_path / "x.safetensors")
    pipeline = DiffusionPipeline.from_pretrained(model.path)
    pipeline.load_textual_inversion(
        VECTORS, token="<x>", text_encoder=pipeline.text_encoder, tokenizer=pipeline.tokenizer
    )
    pipeline.load_textual_inversion(
        wide, token="<x>", text_encoder=pipeline.text_encoder_2, tokenizer=pipeline.tokenizer_2
    )

    texts = TextStates(load(model, CPU, embeddings=[open_embedding(path, "<x>", model, field=FIELD)]))
    states, _, _, _ = pipeline.encode_prompt("a red <x> on snow", do_classifier_free_guidance=False)

    torch.testing.assert_close(texts.of(["a red <x> on snow"])[:, :20], states[:, :20], atol=1e-4, rtol=1e-4)
    with pytest.raises(SpecError, match="has no clip_l and clip_g, which Stable Diffusion XL needs"):
        open_embedding(saved({"<x>": VECTORS}, tmp_path / "one.pt"), "<x>", model, field=FIELD)


def test_the_pooled_text_of_xl_is_read_at_its_end_with_any_embeddings(tmp_path: Path) -> None:
    folder = write_shape(tmp_path / "xl", "xl")
    config = folder / "text_encoder_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": 2}))  # as in the real configuration
    model = resolve(str(folder))
    known = load(model, CPU)
    same = (
        known.encoders[0].network.get_input_embeddings().weight,
        known.encoders[1].network.get_input_embeddings().weight,
    )
    ball = PromptTokenizer(model).read("ball").ids[1]
    word = Embedding("<x>", (same[0][ball][None].numpy(), same[1][ball][None].numpy()))

    taught = TextStates(load(model, CPU, embeddings=[word]))

    torch.testing.assert_close(taught.pooled(["a <x>"]), TextStates(known).pooled(["a ball"]))
    torch.testing.assert_close(taught.of(["a <x>"]), TextStates(known).of(["a ball"]))


def test_an_embeddings_word_can_have_a_weight(tiny_model: ModelFolder) -> None:
    texts = TextStates(load(tiny_model, CPU, embeddings=[Embedding("<x>", (VECTORS.numpy(),))]))

    plain, heavy = texts.of(["a <x>", (Piece("a ", 1.0), Piece("<x>", 1.5))])

    assert torch.allclose(plain[1], heavy[1])  # "a"
    assert not torch.allclose(plain[2:5], heavy[2:5], atol=1e-3)


def test_the_content_of_the_file_is_part_of_an_images_address(tiny_folder: Path, tmp_path: Path) -> None:
    path = saved({"<x>": VECTORS}, tmp_path / "x.safetensors")
    order = an_order(
        str(tiny_folder),
        stages=[
            {"name": "base", "txt2img": {"model": str(tiny_folder), "embeddings": [{"uri": str(path), "token": "<x>"}]}}
        ],
    )

    def ids() -> list[str]:
        (stage,) = stages_of(Expansion(order.spec))
        return [sample.id for sample in Expansion(order.spec).samples_of(stage.recipe)]

    before = ids()
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    assert ids() == before
    saved({"<x>": VECTORS + 1}, path)
    assert not set(ids()) & set(before)


def test_a_dataset_with_embeddings_is_drawn_labeled_and_published(tiny_folder: Path, tmp_path: Path) -> None:
    path = saved({"<x>": VECTORS}, tmp_path / "x.safetensors")
    words = [{"uri": str(path), "token": token} for token in ("<x>", "<ball-x>")]
    model = {"model": str(tiny_folder), "steps": 1, "embeddings": words}
    order = an_order(
        str(tiny_folder),
        classes=[{"name": "ball", "synonyms": ["<x>"]}],
        prompts={"templates": ["a red <x>", "a ball", "a <ball-x>"]},
        quality={"minInstances": 0},
        stages=[{"name": "base", "txt2img": model}],
    )
    store = FolderStore(tmp_path / "store")

    plan(order, store)
    for header, rows in planned_shards(order, store):
        run_shard(header, rows, store)
    published = publish(order, store).published

    assert published is not None
    dataset = dataset_of(store)
    assert dataset["stages"][0]["embeddings"][0]["token"] == "<x>"
    for line in manifest_lines(store, published.revision):
        evidence = store.read(layout.evidence("base", dataset["stages"][0]["evidenceId"], line["id"]))
        # by the class's name, and by the embedding's word, but not by a part of a word
        expected = () if line["prompt"] == "a <ball-x>" else ("ball",)
        assert AttentionMaps.loads(evidence, line["id"]).classes == expected


def test_a_file_that_changed_since_the_plan_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    path = saved({"<x>": VECTORS}, tmp_path / "x.safetensors")
    model = {"model": str(tiny_folder), "steps": 1, "embeddings": [{"uri": str(path), "token": "<x>"}]}
    order = an_order(str(tiny_folder), stages=[{"name": "base", "txt2img": model}])
    store = FolderStore(tmp_path / "store")
    plan(order, store)
    saved({"<x>": VECTORS + 1}, path)

    header, rows = next(planned_shards(order, store))
    with pytest.raises(SpecError, match=r"embeddings\[0\] of stage base: .* in the plan; .* or plan again") as caught:
        run_shard(header, rows, store)
    assert caught.value.reason == "ModelChanged"


def test_bytes_that_are_not_an_archive_do_not_crash_the_reader(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    torch.save({"<x>": VECTORS}, buffer)
    whole = np.frombuffer(buffer.getvalue(), np.uint8)
    path, refused = tmp_path / "x.pt", 0
    for _ in range(200):
        spoilt = whole.copy()
        spoilt[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
        path.write_bytes(spoilt.tobytes())
        try:
            read_tensors(path)
        except ValueError:
            refused += 1
    assert refused > 0  # any other exception fails the test


def test_from_a_file_with_several_embeddings_the_one_of_the_token_is_read(
    tiny_model: ModelFolder, tmp_path: Path
) -> None:
    path = saved({"<piano>": VECTORS, "<harp>": VECTORS[:1] + 1}, tmp_path / "words.safetensors")

    harp = open_embedding(path, "<Harp>", tiny_model, field=FIELD)

    assert np.array_equal(harp.vectors[0], (VECTORS[:1] + 1).numpy())
    with pytest.raises(SpecError, match=r"holds 2 tensors and none is called '<lute>' \(<harp>, <piano>\)"):
        open_embedding(path, "<lute>", tiny_model, field=FIELD)


def test_a_pair_of_files_is_read_for_both_encoders_of_xl(tmp_path: Path) -> None:
    model = str(write_shape(tmp_path / "xl", "xl"))
    wide = torch.randn(3, 40, generator=torch.Generator().manual_seed(2))
    first = saved({"<x>": VECTORS}, tmp_path / "learned_embeds.safetensors")
    stages = [{"name": "base", "txt2img": {"model": model, "embeddings": [{"uri": str(first), "token": "<x>"}]}}]
    order = an_order(model, image={"width": 64, "height": 64}, stages=stages)
    with pytest.raises(SpecError, match="has no clip_l and clip_g, which Stable Diffusion XL needs"):
        stages_of(Expansion(order.spec))

    second = saved({"<x>": wide}, tmp_path / "learned_embeds_2.safetensors")
    (word,) = stages_of(Expansion(order.spec))[0].embeddings
    (opened,) = open_embeddings([word], resolve(model), None, stage="base")

    assert all(np.array_equal(one, other.numpy()) for one, other in zip(opened.vectors, (VECTORS, wide), strict=True))
    saved({"<x>": wide + 1}, second)
    with pytest.raises(SpecError, match="give plan and stages the same file, or plan again"):
        open_embeddings([word], resolve(model), None, stage="base")


def test_the_file_of_pivotal_tuning_is_read_for_both_encoders_of_xl(tmp_path: Path) -> None:
    model = resolve(str(write_shape(tmp_path / "xl", "xl")))
    wide = torch.randn(3, 40, generator=torch.Generator().manual_seed(2))
    path = tmp_path / "embeddings.pti"
    save_file({"text_encoders_0": VECTORS, "text_encoders_1": wide}, path)

    opened = open_embedding(path, "<x>", model, field=FIELD)

    assert np.array_equal(opened.vectors[0], VECTORS.numpy())
    assert np.array_equal(opened.vectors[1], wide.numpy())


def pickled(operations: bytes) -> bytes:
    """Return a zip archive of torch whose pickle is `operations`, with a storage of four numbers."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + operations + b".")
        archive.writestr("x/data/0", np.arange(4, dtype=np.float32).tobytes())
    return buffer.getvalue()


# Small enough that a reader without bounds does not exhaust the machine: each level doubles the work.
SHARED_DICTS = b"}" + b"".join(b"q%c}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cu" % (n, n, n) for n in range(14))
SHARED_TUPLES = b")" + b"".join(b"q%c0h%ch%c\x86" % (n, n, n) for n in range(20))
DEEP_DICTS = b"}" + b"".join(b"q%c}X\x01\x00\x00\x00ah%cs" % (n, n) for n in range(20))
A_STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def a_tensor(size: bytes, stride: bytes) -> bytes:
    """Return the operations for a dictionary with one tensor; `size` and `stride` are operations for tuples."""
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + A_STORAGE + b"K\x00" + size + stride + b"\x89N" + b"tR"
    return b"}X\x01\x00\x00\x00a" + call + b"s"


FIVE_THOUSAND = b"M\x88\x13"
MUCH, UNREADABLE = "holds more than an embedding does", "cannot be read"


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        pytest.param(SHARED_DICTS, MUCH, id="shared dicts"),
        pytest.param(DEEP_DICTS, MUCH, id="deep dicts"),
        pytest.param(b"}" + SHARED_TUPLES + b"K\x01s", UNREADABLE, id="a shared tuple as key"),
        pytest.param(b"}(" + SHARED_TUPLES + b"K\x01u", UNREADABLE, id="as keys"),
        pytest.param(
            b"ccollections\nOrderedDict\n(((" + SHARED_TUPLES + b"K\x01tttR", UNREADABLE, id="of an ordered dict"
        ),
        pytest.param(b"(" + SHARED_TUPLES + b"K\x01d", UNREADABLE, id="of a dict"),
        pytest.param(b"\x8f(" + SHARED_TUPLES + b"\x90", UNREADABLE, id="in a set"),
        pytest.param(
            b"(X\x01\x00\x00\x00s" + SHARED_TUPLES + SHARED_TUPLES + b"X\x01\x00\x00\x00cK\x04tQ",
            UNREADABLE,
            id="of a storage",
        ),
        pytest.param(b")" + b"\x85" * 500_000 + b"Vx\ns", MUCH, id="a deep tuple"),
        pytest.param(a_tensor(FIVE_THOUSAND + FIVE_THOUSAND + b"\x86", b"K\x00K\x00\x86"), MUCH, id="stride 0"),
        pytest.param(a_tensor(b"\x8a\x14" + b"\x7f" * 20 + b"\x85", b"K\x00\x85"), MUCH, id="a large size"),
        pytest.param(a_tensor(b"(K\x01\x85K\x02t", b"K\x00K\x00\x86"), UNREADABLE, id="a nested size"),
        pytest.param(b"}" + b"q\x00h\x00" * 20_000, MUCH, id="operations"),
    ],
)
def test_a_small_file_cannot_ask_for_much_work(operations: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(pickled(operations))

    with pytest.raises(ValueError, match=f"^{message}"):
        read_tensors(path)


def test_a_safetensors_file_with_a_large_header_is_refused(tmp_path: Path) -> None:
    names = {str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)}
    header = json.dumps(names).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(ValueError, match="holds more than an embedding does"):
        read_tensors(path)


def test_the_tensors_that_torch_writes_with_strides_are_still_read(tmp_path: Path) -> None:
    whole = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    path = saved({"<x>": whole.T, "<y>": whole[:1].expand(3, 4)}, tmp_path / "x.pt")

    read = read_tensors(path)

    np.testing.assert_array_equal(read["<x>"], whole.T.numpy())
    np.testing.assert_array_equal(read["<y>"], whole[:1].expand(3, 4).numpy())
