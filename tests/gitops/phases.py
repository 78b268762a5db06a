"""Objects in every phase, made by the operator's own policy, and how GitOps tools should judge each.

`python -m tests.gitops.phases` writes them, with the health that Argo CD finds, as the test data that Argo CD's
repository takes; a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from diffugen_api.contract import GROUP, KIND, VERSION
from tests.gitops.engines import ARGOCD, Json, argocd_health
from tests.operator.status.test_kstatus import PHASES


@dataclass(frozen=True)
class Expected:
    """How each tool should judge a phase."""

    file: str
    """The name of the test data's file; it begins with Argo CD's health."""
    flux: str
    """Flux with the expressions that wait for the published dataset; kstatus gives the same."""
    flux_planned: str
    """Flux with the expressions that wait for the plan."""

    @property
    def health(self) -> str:
        """Argo CD's health."""
        return self.file.partition("_")[0].capitalize()


EXPECTED = {
    "just created, not seen by anybody": Expected("progressing_created", "InProgress", "InProgress"),
    "accepted": Expected("progressing_accepted", "InProgress", "InProgress"),
    "planning": Expected("progressing_planning", "InProgress", "InProgress"),
    "planning, the store away": Expected("progressing_storeUnreachable", "InProgress", "InProgress"),
    "drawing": Expected("progressing_drawing", "InProgress", "Current"),
    "drawing, no node free": Expected("progressing_unschedulable", "InProgress", "Current"),
    "publishing": Expected("progressing_publishing", "InProgress", "Current"),
    "published": Expected("healthy_published", "Current", "Current"),
    "published, edited, not seen yet": Expected("progressing_edited", "InProgress", "InProgress"),
    "published, edited, seen": Expected("progressing_editAccepted", "InProgress", "InProgress"),
    "published, edited in how it runs": Expected("healthy_runEdited", "Current", "Current"),
    "suspended before it was published": Expected("suspended_drawing", "InProgress", "Current"),
    "suspended after it was published": Expected("healthy_suspended", "Current", "Current"),
    "stalled": Expected("degraded_storeNotSet", "Failed", "Failed"),
    "stalled, edited, not seen yet": Expected("progressing_stalledEdited", "InProgress", "InProgress"),
    "nothing has moved for long": Expected("degraded_noProgress", "Failed", "Failed"),
    "in Kueue's queue": Expected("progressing_queued", "InProgress", "InProgress"),
    "planned again by itself": Expected("progressing_plannedAgain", "InProgress", "InProgress"),
    "given its finalizer, not seen further yet": Expected("progressing_finalizer", "InProgress", "InProgress"),
}
"""All phases but those of an object that is being deleted: Argo CD and Flux judge those without our rules."""


def object_in(phase: str) -> Json:
    """Return the whole object in a phase."""
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, **PHASES[phase][0]().raw}


def rendered() -> dict[str, str]:
    """Return the test data of Argo CD: file below the customization's folder, and its text."""
    tests, files = [], {}
    for phase, expected in EXPECTED.items():
        obj, path = object_in(phase), f"testdata/{expected.file}.yaml"
        files[path] = f"# {phase}\n" + yaml.safe_dump(obj, sort_keys=False, width=120, allow_unicode=True)
        status, message = argocd_health(obj)
        tests.append({"healthStatus": {"status": status, "message": message}, "inputPath": path})
    files["health_test.yaml"] = yaml.safe_dump({"tests": tests}, sort_keys=False, width=120, allow_unicode=True)
    return files


def main() -> None:
    """Write the test data."""
    for old in (ARGOCD / "testdata").glob("*.yaml"):
        old.unlink()
    for path, text in rendered().items():
        (ARGOCD / path).write_text(text)


if __name__ == "__main__":
    main()
