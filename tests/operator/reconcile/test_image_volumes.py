"""Jobs with image volumes: refused where the API server would drop the volumes."""

from __future__ import annotations

from typing import Any

from diffugen_operator.kube.api import ApiError
from diffugen_operator.kube.cache import Resource
from tests.operator.worlds import World

REFERENCE = f"registry.example.com/org/sd15@sha256:{'a' * 64}"
STAGES = [{"name": "base", "txt2img": {"model": f"oci://{REFERENCE}#/sd15"}}]


def a_world(**changes: Any) -> World:
    return World(**{"stages": STAGES, **changes})


def stalled(world: World) -> tuple[str, str]:
    (found,) = [c for c in world.dataset["status"]["conditions"] if c["type"] == "Stalled" and c["status"] == "True"]
    return found["reason"], found["message"]


async def test_a_job_is_created_where_the_volumes_are_kept() -> None:
    world = a_world()
    await world.turn()
    world.asked()

    await world.turn()

    assert world.asked() == ["create configmaps", "dry run jobs", "create jobs"]
    volumes = world.job("plan")["spec"]["template"]["spec"]["volumes"]
    assert [each["image"]["reference"] for each in volumes if "image" in each] == [REFERENCE]


async def test_without_image_volumes_nothing_is_tried() -> None:
    world = World()

    await world.turn(2)

    assert "dry run jobs" not in world.asked()


async def test_a_server_that_drops_the_volumes_stalls_the_run_before_a_job_is_created() -> None:
    world = a_world()
    world.cluster.image_volumes = False

    await world.turn(2)

    assert "create jobs" not in world.asked()
    reason, message = stalled(world)
    assert reason == "ImageVolumesNotSupported"
    words = "the API server has no image volumes, by which pods read"
    assert message.startswith(f"spec.stages[0].txt2img.model: {words} {REFERENCE}: use Kubernetes 1.35 or later")


async def test_a_server_older_than_the_field_stalls_the_run_too() -> None:
    world = a_world()
    words = 'Job in version "v1" cannot be handled as a Job: strict decoding error: unknown field '
    field = '"spec.template.spec.volumes[2].image"'
    world.cluster.refusals["dry run jobs"] = ApiError(400, "BadRequest", words + field)

    await world.turn(2)

    assert stalled(world)[0] == "ImageVolumesNotSupported"


async def test_a_dry_run_that_fails_for_another_reason_is_no_answer() -> None:
    world = a_world()
    await world.turn()
    world.cluster.refusals["dry run jobs"] = ApiError(400, "BadRequest", "a webhook does not support dry run")

    await world.turn()

    assert world.job("plan")


async def test_an_image_volume_of_the_pod_template_is_named_as_such() -> None:
    volume = {"name": "mine", "image": {"reference": "registry.example.com/org/mine:1"}}
    world = World(run={"podTemplate": {"spec": {"volumes": [volume]}}})
    world.cluster.image_volumes = False

    await world.turn(2)

    reason, message = stalled(world)
    assert reason == "ImageVolumesNotSupported"
    words = "the API server has no image volumes, by which pods read"
    assert message.startswith(f"spec.run.podTemplate: {words} registry.example.com/org/mine:1: use")


async def test_a_retry_after_the_cluster_was_upgraded_goes_on() -> None:
    world = a_world()
    world.cluster.image_volumes = False
    await world.turn(2)
    assert stalled(world)
    world.cluster.image_volumes = True
    metadata = world.dataset["metadata"] | {"annotations": {"diffugen.dev/retry-requested-at": "now"}}
    world.see(Resource.DATASETS, world.cluster.put("labeleddatasets", world.dataset | {"metadata": metadata}))

    await world.turn(2)

    assert world.job("plan")
