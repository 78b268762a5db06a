"""A dataset that names no store is written to the operator's default store, under any name, and is cleaned up there."""

from __future__ import annotations

from tests.cluster.world import World


def test_a_dataset_without_a_store_is_published_to_the_default_one(world: World) -> None:
    store = world.cluster.minio
    world.operator.environment = {
        "DIFFUGEN_STORE_ENDPOINT": store.endpoint,
        "DIFFUGEN_STORE_BUCKET": world.bucket,
        "DIFFUGEN_STORE_PREFIX": "datasets",
        "DIFFUGEN_STORE_SECRET": "store",
    }
    world.operator.start()
    try:
        manifest = world.apply(output={"s3": None, "formats": ["coco"]})
        assert "s3" not in manifest["spec"]["output"]
        dataset = world.wait_ready()

        assert dataset["status"]["dataset"]["uri"].startswith(f"s3://{world.bucket}/{world.root}")
        assert dataset["status"]["summary"]["state"] == "Succeeded"
        assert dataset["status"]["summary"]["observedGeneration"] == dataset["metadata"]["generation"]
        assert world.current() is not None
        assert dataset["spec"]["output"] == {"formats": ["coco"]}, "the store is not written into the user's spec"
    finally:
        world.operator.end()
        world.kubectl("delete", "namespace", world.namespace, "--wait=false")
