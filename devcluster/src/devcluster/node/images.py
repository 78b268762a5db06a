"""What an image is on a node without images: a name that says whether, and with what entry point, a container
can run."""

from collections.abc import Mapping, Sequence

from devcluster.kubeapi import JsonObject

_ENTRYPOINTS: Mapping[str, tuple[str, ...]] = {
    "diffugen/generator": ("diffugen",),
    "diffugen/operator": ("diffugen-operator",),
}


class ImageStore:
    """The images that this node has."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = tuple(prefixes)

    def has(self, image: str) -> bool:
        """Whether it is here; a registry before the name does not matter."""
        return any(image.startswith(prefix) or f"/{prefix}" in image for prefix in self._prefixes)

    def entrypoint(self, image: str) -> list[str]:
        """What runs when the container names no command."""
        for name, words in _ENTRYPOINTS.items():
            if f"/{name}" in f"/{image}":
                return list(words)
        return []


def pull_policy(container: JsonObject) -> str:
    """As the API server defaults it."""
    return str(container.get("imagePullPolicy", "IfNotPresent"))
