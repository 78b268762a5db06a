"""A stage's field `modelSHA256`: the digest that its model must have, and the consent to read pickled weights."""

from __future__ import annotations

from dataclasses import dataclass

from diffugen_api.plan import SpecError


@dataclass(frozen=True, slots=True)
class Pin:
    """What a spec says of the digest of one model."""

    field: str
    """The path of the field that names the model, for messages."""
    digest: str | None
    """In hex; None where the spec does not say it."""

    @property
    def _name(self) -> str:
        return f"{self.field.removesuffix('model')}modelSHA256"

    def check(self, what: str, digest: str) -> None:
        """Raise `SpecError` if the model has another digest; `what` is the model, as the beginning of a sentence."""
        if self.digest is not None and self.digest != digest:
            raise SpecError(
                "ModelMismatch",
                f"{self._name}: {what} {digest}, and not {self.digest}; look what changed, then write its digest, or "
                "leave the field out.",
            )

    def check_pickle(self, uri: str, digest: str, why: str) -> None:
        """Raise `SpecError` if pickled weights are not pinned; `why` says what is pickled and what to do instead."""
        if not self.digest:
            raise SpecError(
                "UnsupportedModel", f"{self.field}: {uri!r} {why}, or set {self._name} to {digest} if you trust it."
            )
