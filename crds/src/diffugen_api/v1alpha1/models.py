"""What a stage loads: the URI of a model, and textual inversion embeddings."""

from __future__ import annotations

from pydantic import Field

from diffugen_api.v1alpha1.base import Model

MODEL = (
    "A Stable Diffusion pipeline (1.x, 2.x, XL): builtin://NAME, hf://ORG/NAME@REVISION, s3://BUCKET/FOLDER, or a path"
)
_WORD = r"^[^\s()\[\]{}\\\",:+]*[^\s()\[\]{}\\\",:+-]$"


class Embedding(Model):
    """A textual inversion embedding: a token and its vectors for the text encoder."""

    uri: str = Field(
        min_length=1,
        max_length=512,
        description="The file, in the form of diffusers or A1111, as safetensors or .pt: a path, s3://BUCKET/FILE, or "
        "hf://ORG/NAME@REVISION/FILE (learned_embeds.safetensors where no file is named).",
    )
    token: str = Field(
        max_length=64,
        pattern=_WORD,
        description="The token for it in prompts, such as <piano>; case does not matter. It may be a "
        "synonym of a class.",
    )
