"""The keys of all objects in the store: pure functions from names to keys.

    <prefix>/<namespace>/<name>/
      samples/<stage>/<id[:2]>/<id>/image.png, recipe.json   drawn once; recipe.json, the commit, last
      evidence/<stage>/<evidence id>/<id[:2]>/<id>.npz       the output of a model: class maps, detections
      labels/<stage>/<label id>/<id[:2]>/<id>.json           the decided labels: instances
      embeddings/<address>/                                  a word that a stage trained: its files, card.json last
      calibrations/<address>/calibration.json                chosen from annotated images
      plans/<revision>/spec.json, prompts.jsonl.gz, <stage>/<index>.jsonl.gz   the samples of a shard; plan.json last
      shards/<revision>/<stage>/<index>.json                 the report of a shard
      shards/<revision>/_publish/<address>/                  of a publication in shards, until it is joined: their parts
      revisions/<revision>/  manifest.jsonl.gz, a folder per format, report.html, report/, dataset.json (last)
      current.json                                             the pointer; moved when all other files are written

Keys are relative to the dataset's root, so they are the same in a folder and in a bucket. The two hex digits divide a
million objects into 256 listings.
"""

from __future__ import annotations

import re

CURRENT = "current.json"
SAMPLES = "samples/"
EVIDENCE = "evidence/"
LABELS = "labels/"
EMBEDDINGS = "embeddings/"
CALIBRATIONS = "calibrations/"
PLANS = "plans/"
SHARD_REPORTS = "shards/"
REVISIONS = "revisions/"


def dataset_root(prefix: str, namespace: str, name: str) -> str:
    """Return the dataset's root below the bucket, without slashes at either end."""
    return "/".join(part for part in (prefix.strip("/"), namespace, name) if part)


def samples(stage: str) -> str:
    """Return the folder of a stage's samples, with its closing slash."""
    return f"samples/{stage}/"


def sample(stage: str, sample_id: str) -> str:
    """Return the folder of one sample, with its closing slash."""
    return f"samples/{stage}/{sample_id[:2]}/{sample_id}/"


def image(stage: str, sample_id: str, extension: str) -> str:
    """Return the key of a sample's image; `extension` is png, jpeg or webp."""
    return f"{sample(stage, sample_id)}image.{extension}"


def recipe(stage: str, sample_id: str) -> str:
    """Return the key of a sample's recipe: if it exists, the image is complete."""
    return f"{sample(stage, sample_id)}recipe.json"


def evidence_folder(stage: str, evidence_id: str) -> str:
    """Return the folder of all evidence with one evidence id, with its closing slash."""
    return f"evidence/{stage}/{evidence_id}/"


def evidence(stage: str, evidence_id: str, sample_id: str) -> str:
    """Return the key of one sample's evidence."""
    return f"{evidence_folder(stage, evidence_id)}{sample_id[:2]}/{sample_id}.npz"


def labels_folder(stage: str, label_id: str) -> str:
    """Return the folder of all labels with one label id, with its closing slash."""
    return f"labels/{stage}/{label_id}/"


def label(stage: str, label_id: str, sample_id: str) -> str:
    """Return the key of one sample's labels."""
    return f"{labels_folder(stage, label_id)}{sample_id[:2]}/{sample_id}.json"


def trained(address: str, name: str) -> str:
    """Return the key of a file of a training's result."""
    return f"embeddings/{address}/{name}"


def calibration(address: str) -> str:
    """Return the key of a calibration."""
    return f"calibrations/{address}/calibration.json"


def plan_summary(revision: str) -> str:
    """Return the key of a plan's summary, written after all its shards."""
    return f"plans/{revision}/plan.json"


def planned_spec(revision: str) -> str:
    """Return the key of the spec that a plan was made for, written before its shards."""
    return f"plans/{revision}/spec.json"


def planned_prompts(revision: str) -> str:
    """Return the key of the rows of a plan's prompts file, as the plan read them."""
    return f"plans/{revision}/prompts.jsonl.gz"


def shard(revision: str, stage: str, index: int) -> str:
    """Return the key of a shard's samples."""
    return f"plans/{revision}/{stage}/{index:05d}.jsonl.gz"


def shard_report(revision: str, stage: str, index: int) -> str:
    """Return the key of a shard's report."""
    return f"shards/{revision}/{stage}/{index:05d}.json"


def publish_parts(revision: str) -> str:
    """Return the folder of all parts of a revision's publication, with its closing slash; no stage has this name."""
    return f"shards/{revision}/_publish/"


def publish_part(revision: str, address: str, index: int) -> str:
    """Return the key of the document of a part; `address` is that of all parts of one publication."""
    return f"{publish_parts(revision)}{address}/{index:05d}/part.json"


def revision_folder(revision: str) -> str:
    """Return the folder of a published revision, with its closing slash."""
    return f"revisions/{revision}/"


def addresses(revision_folder_key: str) -> str:
    """Return the key of the file with the fingerprint of the content in a revision's folder; written first."""
    return f"{revision_folder_key}addresses.json"


def dataset_card(revision_folder_key: str) -> str:
    """Return the key of a revision's dataset.json, written when the revision is complete."""
    return f"{revision_folder_key}dataset.json"


_NAME = "[a-z0-9][-a-z0-9]*"
_REVISION = "[0-9a-f]{10}"
_ID = "[0-9a-f]{8,64}"

_OURS = re.compile(
    rf"current\.json"
    rf"|samples/{_NAME}/[0-9a-f]{{2}}/{_ID}/[^/]+"
    rf"|evidence/{_NAME}/{_ID}/[0-9a-f]{{2}}/{_ID}\.[^/]+"
    rf"|labels/{_NAME}/{_ID}/[0-9a-f]{{2}}/{_ID}\.[^/]+"
    rf"|embeddings/{_ID}/[^/]+"
    rf"|calibrations/{_ID}/[^/]+"
    rf"|plans/{_REVISION}/.+"
    rf"|shards/{_REVISION}/.+"
    rf"|revisions/{_REVISION}(-[0-9a-f]{{8}})?/.+",
    re.DOTALL,
)


def is_ours(key: str) -> bool:
    """Return whether a key belongs to this layout; another dataset's root can be below this one's root."""
    return _OURS.fullmatch(key) is not None
