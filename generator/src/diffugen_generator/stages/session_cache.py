"""The open session: consecutive shards share it if they need the same models and settings.

Loading a model can take longer than drawing a shard, so a process with several shards keeps the model. Only one session
is open: the next one is loaded after the last one is closed, because two may not fit into a GPU's memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from diffugen_api.contract import ENV_BATCH_SIZE, ENV_COMPILE, ENV_DEVICE, ENV_DTYPE
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3, LabeledDatasetSpec, Run
from diffugen_generator.models.embeddings import open_embeddings
from diffugen_generator.models.loras import open_loras
from diffugen_generator.models.resolve import resolve
from diffugen_generator.samples.shards import GIVEN, ShardHeader
from diffugen_generator.store.protocol import Store

if TYPE_CHECKING:
    from diffugen_generator.stages.label_only_session import LabelOnlySession
    from diffugen_generator.stages.model_session import ModelSession


class SessionCache:
    """Opens sessions, and keeps the last one open."""

    def __init__(
        self,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        dtype: str = "auto",
        compiled: bool = False,
        s3: S3 | None = None,
        reproduce: bool = False,
    ) -> None:
        """Open sessions on `device` (default: the GPU, if any), for batches of `batch_size` (default: by the device).

        `dtype` and `compiled` are values of `run.dtype` and `run.compile`; `s3` is the store whose endpoint and
        credentials `s3://` means. With `reproduce`, images are drawn and labeled one by one, on one thread, with
        deterministic algorithms, and nothing is compiled.
        """
        self._device = device
        self._batch_size = 1 if reproduce else batch_size
        self._reproduce = reproduce
        self._dtype = dtype
        self._compiled = compiled and not reproduce
        self._s3 = s3
        self._open: tuple[ShardHeader, ModelSession] | None = None
        self._onlooker: tuple[ShardHeader, LabelOnlySession] | None = None

    @classmethod
    def of(
        cls,
        spec: LabeledDatasetSpec,
        *,
        device: str | None,
        environ: Mapping[str, str] = os.environ,
        reproduce: bool = False,
    ) -> SessionCache:
        """Return sessions with the settings of `spec.run`; the environment variables of a pod override them."""
        run = spec.run
        dtype, batch = environ.get(ENV_DTYPE) or run.dtype, environ.get(ENV_BATCH_SIZE) or run.batch_size
        try:
            settings = Run.model_validate({"dtype": dtype, "batchSize": int(batch) if batch else None})
        except ValueError:
            raise SpecError(
                "InvalidSettings",
                f"{ENV_DTYPE}={dtype} {ENV_BATCH_SIZE}={batch}: the first is auto, float32, float16 or bfloat16, the "
                "second a number from 1 to 256; fix or unset them.",
            ) from None
        return cls(
            device=device or environ.get(ENV_DEVICE) or None,
            batch_size=settings.batch_size,
            dtype=settings.dtype,
            compiled=run.compile or environ.get(ENV_COMPILE) == "true",
            s3=spec.output.s3,
            reproduce=reproduce,
        )

    def open(
        self,
        header: ShardHeader,
        on_loading: Callable[[], None] = lambda: None,
        *,
        store: Store | None = None,
    ) -> ModelSession:
        """Return a session for the samples of `header`'s shard; `on_loading` is called before a model is loaded.

        A calibration of attention is read from the dataset's `store`, or made and stored. Raises `SpecError` if the
        model is not the one of the plan, or cannot draw.
        """
        alike = _alike(header)
        if self._open is not None and self._open[0] == alike:
            return self._open[1]
        self._open = self._onlooker = None
        on_loading()
        self._prepare()
        # pickled weights are allowed: the plan accepted them for exactly this digest
        model = resolve(header.model, field=f"model of stage {header.stage}", s3=self._s3, pickled=True)
        if model.digest != header.model_digest:
            raise SpecError(
                "ModelChanged",
                f"the model {header.model} of stage {header.stage} has the digest {model.digest[:12]} here, and "
                f"had {header.model_digest[:12]} in the plan; give plan and stages the same model, or plan again.",
            )
        from diffugen_generator.stages.model_session import ModelSession  # noqa: PLC0415 - imports torch

        calibrated = None
        if header.calibration:
            if store is None:
                raise ValueError("a stage with a calibration needs the dataset's store")
            from diffugen_generator.stages.calibrations import calibrated_by  # noqa: PLC0415 - imports torch

            calibrated = calibrated_by(header, store, self._s3)
        words = open_embeddings(header.embeddings, model, self._s3, stage=header.stage)
        session = ModelSession(
            model,
            header,
            device=self._device,
            batch=self._batch_size,
            dtype=self._dtype,
            compiled=self._compiled,
            embeddings=words,
            loras=open_loras(header.loras, self._s3, stage=header.stage),
            s3=self._s3,
            calibrated=calibrated,
        )
        self._open = (alike, session)
        return session

    def label_only(
        self, header: ShardHeader, on_loading: Callable[[], None] = lambda: None
    ) -> LabelOnlySession | ModelSession:
        """Return a session that labels images of `header`'s shard without the diffusion model, which is not loaded.

        An open session with the same settings is used. `on_loading` is called before models are loaded.
        """
        alike = _alike(header)
        if self._open is not None and self._open[0] == alike:
            return self._open[1]
        if self._onlooker is not None and self._onlooker[0] == alike:
            return self._onlooker[1]
        self._open = self._onlooker = None
        on_loading()
        self._prepare()
        from diffugen_generator.stages.label_only_session import LabelOnlySession  # noqa: PLC0415 - imports torch

        label_only = LabelOnlySession(header, device=self._device, batch=self._batch_size, s3=self._s3)
        self._onlooker = (alike, label_only)
        return label_only

    def _prepare(self) -> None:
        if self._reproduce:
            from diffugen_generator.diffusion.devices import compute_reproducibly  # noqa: PLC0415 - imports torch

            compute_reproducibly()


def _alike(header: ShardHeader) -> ShardHeader:
    """Return the part of a header that is equal for all shards that can share a session."""
    alike = replace(header, index=0)
    if header.kind == GIVEN:  # images that are only labeled may differ in size and format
        alike = replace(alike, drawing={**header.drawing, "image": None})
    return alike
