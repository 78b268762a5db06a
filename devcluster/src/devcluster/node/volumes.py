"""Makes a pod's volumes as directories."""

from collections.abc import Mapping
from pathlib import Path

from devcluster.kubeapi import JsonObject
from devcluster.node.images import ImageStore
from devcluster.node.sources import MissingError, Sources, field_of, resource_of

_DEFAULT_MODE = 0o644


async def make_volumes(pod: JsonObject, directory: Path, sources: Sources, images: ImageStore) -> dict[str, Path]:
    """Return each volume's directory by name; that of an image which the node does not have does not exist.

    Raises `MissingError` if a volume refers to a missing object.
    """
    volumes = {}
    for volume in pod["spec"].get("volumes") or []:
        if "image" in volume:
            volumes[volume["name"]] = images.root_of(volume["image"].get("reference", ""))
            continue
        target = directory / volume["name"]
        target.mkdir(parents=True, exist_ok=True)
        try:
            volumes[volume["name"]] = await _fill(volume, target, pod, sources)
        except MissingError as error:
            raise MissingError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from None
    return volumes


def mounts_of(container: JsonObject, volumes: Mapping[str, Path]) -> dict[str, Path]:
    """Return the directory or file for each mount path."""
    mounts = {}
    for mount in container.get("volumeMounts") or []:
        path = volumes[mount["name"]]
        if sub_path := mount.get("subPath"):
            path = path / sub_path
            if not path.exists():
                path.mkdir(parents=True)
        mounts[mount["mountPath"]] = path
    return mounts


async def _fill(volume: JsonObject, target: Path, pod: JsonObject, sources: Sources) -> Path:
    if "emptyDir" in volume:
        return target
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    if "persistentVolumeClaim" in volume:
        return await sources.claimed(volume["persistentVolumeClaim"]["claimName"])
    if "projected" in volume:
        mode = volume["projected"].get("defaultMode", _DEFAULT_MODE)
        for source in volume["projected"].get("sources") or []:
            await _write(source, target, pod, sources, mode)
        return target
    if "secret" in volume:  # only for a Secret the name's field differs between a volume and a projection
        secret = {**volume["secret"], "name": volume["secret"].get("secretName", "")}
        await _write({"secret": secret}, target, pod, sources, secret.get("defaultMode", _DEFAULT_MODE))
        return target
    for kind in ("configMap", "downwardAPI"):
        if kind in volume:
            mode = volume[kind].get("defaultMode", _DEFAULT_MODE)
            await _write({kind: volume[kind]}, target, pod, sources, mode)
            return target
    kinds = ", ".join(sorted(volume.keys() - {"name"}))
    raise MissingError(f"this node has no volumes of kind {kinds}")


async def _write(source: JsonObject, target: Path, pod: JsonObject, sources: Sources, mode: int) -> None:
    for path, content in (await _files(source, pod, sources)).items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(content)
        file.chmod(mode)


async def _files(source: JsonObject, pod: JsonObject, sources: Sources) -> dict[str, bytes]:
    if "configMap" in source:
        reference = source["configMap"]
        content = await sources.config_map(reference.get("name", ""), optional=reference.get("optional", False))
        return _selected(content, reference)
    if "secret" in source:
        reference = source["secret"]
        content = await sources.secret(reference.get("name", ""), optional=reference.get("optional", False))
        return _selected(content, reference)
    if "serviceAccountToken" in source:
        projection = source["serviceAccountToken"]
        token = await sources.token(pod["spec"].get("serviceAccountName", "default"), projection, pod)
        return {projection["path"]: token.encode()}
    return {item["path"]: _fact(item, pod).encode() for item in source["downwardAPI"].get("items") or []}


def _selected(content: Mapping[str, bytes], reference: JsonObject) -> dict[str, bytes]:
    items = reference.get("items")
    if not items:
        return dict(content)
    missing = [item["key"] for item in items if item["key"] not in content]
    if missing and not reference.get("optional", False):
        raise MissingError(f"references non-existent config key: {missing[0]}")
    return {item["path"]: content[item["key"]] for item in items if item["key"] in content}


def _fact(item: JsonObject, pod: JsonObject) -> str:
    if "fieldRef" in item:
        return field_of(pod, item["fieldRef"]["fieldPath"])
    selector = item["resourceFieldRef"]
    containers = {container["name"]: container for container in pod["spec"]["containers"]}
    return resource_of(containers[selector["containerName"]], selector)
