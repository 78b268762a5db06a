"""Whether the API server keeps the image volumes of a Job, by which pods read models of `oci://` addresses.

A server without the feature drops these volumes silently, and the pods would not find the models. A server older than
the field refuses it as unknown. A dry run tells both apart from a server that keeps them, with no right but that to
create Jobs.
"""

from __future__ import annotations

import re

from diffugen_api.model_images import OCI, read_model_image
from diffugen_api.model_uris import model_uris
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_operator import reasons
from diffugen_operator.kube.api import ApiError
from diffugen_operator.kube.cache import Object
from diffugen_operator.manifests.pods import image_volumes
from diffugen_operator.observed.base import Trouble
from diffugen_operator.reconcile.requests import Requests

_UNKNOWN_FIELD = re.compile(r'unknown field "spec\.template\.spec\.volumes\[\d+\]\.image"')


async def lack_of_image_volumes(requests: Requests, job: Object, spec: LabeledDatasetSpec | None) -> Trouble | None:
    """Return the trouble if the API server would create `job` without its image volumes; None if it keeps them.

    A dry run that is refused for another reason is no answer: the creation is refused too, and reports it. `spec` is
    that of the dataset, if it is valid. No request is made for a Job without such volumes.
    """
    volumes = image_volumes(job["spec"]["template"]["spec"])
    if not volumes:
        return None
    try:
        kept = image_volumes((await requests.dry_run_job(job))["spec"]["template"]["spec"])
    except ApiError as error:
        if not _UNKNOWN_FIELD.search(error.message):
            return None
        kept = {}
    lost = next((reference for name, reference in volumes.items() if name not in kept), None)
    return None if lost is None else _trouble(lost, {} if spec is None else model_uris(spec))


def _trouble(reference: str, uris: dict[str, str]) -> Trouble:
    images = {field: read_model_image(uri) for field, uri in uris.items() if uri.startswith(OCI)}
    field = next((field for field, image in images.items() if image.reference == reference), "spec.run.podTemplate")
    return Trouble(
        reason=reasons.IMAGE_VOLUMES_NOT_SUPPORTED,
        message=f"{field}: the API server has no image volumes, by which pods read {reference}: use Kubernetes 1.35 or "
        "later (or 1.33 with the feature gate ImageVolume), or give the model as hf://ORG/NAME, "
        "s3://BUCKET/FOLDER or a folder of a volume.",
    )
