"""Images on a node without images: the name decides whether a container can run, and with which entry point."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from devcluster.kubeapi import JsonObject
from devcluster.node.fork_server import Preloaded

_ENTRYPOINTS: Mapping[str, tuple[str, ...]] = {
    "diffugen/generator": ("diffugen",),
    "diffugen/operator": ("diffugen-operator",),
}

_STAGE_WORKER = Preloaded(
    "stage-worker",
    (("diffugen", "worker", "stage"),),
    (
        "diffugen_generator.cli",
        "diffugen_generator.worker",
        "diffugen_generator.diffusion.drawing",
        "diffugen_generator.families.unet.components",
        "diffugen_generator.stages.model_session",
        "diffugen_generator.stages.run_shard",
        "diffugen_generator.stages.session_cache",
        "diffugen_generator.stages.train_stage",
        "diffugen_generator.store.s3",
        "diffugen_generator.telemetry.metrics",
    ),
)
_LIGHT_WORKER = Preloaded(  # without the models' libraries, as in the light image
    "light-worker",
    (
        ("diffugen", "worker", "plan"),
        ("diffugen", "worker", "publish"),
        ("diffugen", "worker", "publish-shard"),
        ("diffugen", "worker", "delete"),
    ),
    (
        "diffugen_generator.cli",
        "diffugen_generator.worker",
        "diffugen_generator.deletion",
        "diffugen_generator.planning.plan",
        "diffugen_generator.publishing.format_registry",
        "diffugen_generator.publishing.publish",
        "diffugen_generator.store.s3",
    ),
)
_OPERATOR = Preloaded("operator", (("diffugen-operator",),), ("diffugen_operator.main",))

PRELOADED = (_STAGE_WORKER, _LIGHT_WORKER, _OPERATOR)
"""The programs of the images, each with the modules that import its libraries."""


class ImageStore:
    """The images that this node has."""

    def __init__(self, prefixes: Sequence[str], root_of: Callable[[str], Path]) -> None:
        """`root_of` returns the folder of an image that is a volume, which may not exist."""
        self._prefixes = tuple(prefixes)
        self.root_of = root_of

    def has(self, image: str) -> bool:
        """Return whether the node has an image; a registry before the name is ignored."""
        return any(image.startswith(prefix) or f"/{prefix}" in image for prefix in self._prefixes)

    def entrypoint(self, image: str) -> list[str]:
        """Return the command of a container that names none."""
        for name, words in _ENTRYPOINTS.items():
            if f"/{name}" in f"/{image}":
                return list(words)
        return []


def pull_policy(container: JsonObject) -> str:
    """Return the pull policy, with the API server's default."""
    return str(container.get("imagePullPolicy", "IfNotPresent"))
