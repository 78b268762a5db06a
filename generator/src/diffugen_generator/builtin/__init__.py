"""What ships with the generator: a pipeline, the scenes it was trained on, and the oracle that judges it."""

from pathlib import Path

SHAPES_PIPELINE = Path(__file__).parent / "shapes"
"""The folder that `builtin://shapes` names: an ordinary diffusers `StableDiffusionPipeline`."""
