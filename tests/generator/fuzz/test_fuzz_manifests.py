"""Manifests made from the CRD's schema: `validate` and `plan` end, or name what is wrong."""

from __future__ import annotations

from pathlib import Path
from random import Random

from diffugen_api.plan import Expansion
from diffugen_generator.commands.manifests import order_of, read_datasets
from diffugen_generator.planning.plan import plan
from diffugen_generator.store.folder import FolderStore
from tests.generator.fuzz.harness import assert_no_faults
from tests.generator.fuzz.manifests import manifest, spec_schema
from tests.generator.made import a_model

REMOTE = (b"hf://", b"s3://", b"http")
MOST_SAMPLES = 2000
"""A plan of more samples is not made: it would take long because it is large."""


def test_a_manifest_is_planned_or_refused_in_words(tmp_path: Path) -> None:
    models = (a_model(tmp_path / "model"), a_model(tmp_path / "model"), "builtin://shapes", "/nowhere", "builtin://x")
    schema = spec_schema()
    file = tmp_path / "manifest.yaml"

    def attempt(case: int) -> None:
        chance = Random(f"manifest {case}")
        text = manifest(chance, schema, models)
        file.write_bytes(text)
        for dataset in read_datasets(file):
            order = order_of(dataset)
            if any(part in text for part in REMOTE) or "builtin://shapes" in text.decode():
                continue
            if sum(Expansion(dataset.spec).most.values()) <= MOST_SAMPLES:
                plan(order, FolderStore(tmp_path / "stores" / str(case)))

    assert_no_faults(attempt, tmp_path, cases=400, share=0.4)
