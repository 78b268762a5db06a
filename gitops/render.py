"""Render what of gitops/ holds a copy of another file: the argocd-cm snippet, the Tekton task, the Kubeflow component.

`python gitops/render.py` writes them; `--check` exits 1 where a file in the tree differs from what would be written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
CUSTOMIZATIONS = HERE / "argocd" / "resource_customizations"
HEALTH = CUSTOMIZATIONS / "diffugen.dev" / "LabeledDataset" / "health.lua"
APPLICATION_HEALTH = CUSTOMIZATIONS / "argoproj.io" / "Application" / "health.lua"
SCRIPT = HERE / "pipelines" / "apply-and-wait.sh"

KUBECTL_IMAGE = "docker.io/alpine/k8s:1.32.0"
"""Any image with kubectl and a shell will do."""

_HEAD = "# Rendered from {source} by `make generate`; do not edit.\n"

ARGOCD_CM = """\
# How Argo CD reads the health of a LabeledDataset. Without it, a kind that Argo CD does not know has no health: its
# application is healthy at once, and a sync wave does not wait for it.
#
#   kubectl patch configmap argocd-cm --namespace argocd --patch-file argocd-cm.yaml
data:
  resource.customizations.health.diffugen.dev_LabeledDataset: |
{health}
  # Argo CD has had no health of an Application inside another since 1.8. This passes on the one that Argo CD found, so
  # that a wave waits for the Applications of the wave before. It applies to all Applications of this Argo CD.
  resource.customizations.health.argoproj.io_Application: |
{application_health}"""

TEKTON = """\
apiVersion: tekton.dev/v1
kind: Task
metadata:
  name: labeled-dataset
spec:
  description: Applies a LabeledDataset, and waits until it is published or cannot go on.
  params:
    - name: manifest
      description: The LabeledDataset, as YAML.
    - name: image
      description: An image with kubectl and a shell.
      default: {image}
  results:
    - name: uri
      description: Where the dataset is.
    - name: revision
      description: Which revision of it was published.
  # The service account of the TaskRun needs get, create and patch on labeleddatasets: the chart's editor role. A
  # TaskRun ends after an hour unless its timeout is longer.
  steps:
    - name: apply-and-wait
      image: $(params.image)
      env:
        - {{name: MANIFEST, value: $(params.manifest)}}
        - {{name: REQUEST, value: $(context.taskRun.uid)}}
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {{drop: [ALL]}}
        runAsNonRoot: true
        runAsUser: 65532
        seccompProfile: {{type: RuntimeDefault}}
      script: |
        #!/bin/sh
        set -eu
        work=$(mktemp -d)
        printf '%s\\n' "$MANIFEST" >"$work/dataset.yaml"
        cat >"$work/apply-and-wait.sh" <<'END'
{script}        END
        sh "$work/apply-and-wait.sh" "$work/dataset.yaml" "$work/results" "$REQUEST"
        cp "$work/results/uri" "$(results.uri.path)"
        cp "$work/results/revision" "$(results.revision.path)"
"""

KUBEFLOW = """\
name: Labeled dataset
description: Applies a LabeledDataset, and waits until it is published or cannot go on.
inputs:
  - {{name: manifest, type: String, description: "The LabeledDataset, as YAML."}}
outputs:
  - {{name: uri, type: String, description: Where the dataset is.}}
  - {{name: revision, type: String, description: Which revision of it was published.}}
implementation:
  container:
    image: {image}
    command:
      - sh
      - -ec
      - |
        work=$(mktemp -d)
        printf '%s\\n' "$0" >"$work/dataset.yaml"
        cat >"$work/apply-and-wait.sh" <<'END'
{script}        END
        sh "$work/apply-and-wait.sh" "$work/dataset.yaml" "$work/results"
        mkdir -p "$(dirname "$1")" "$(dirname "$2")"
        cp "$work/results/uri" "$1"
        cp "$work/results/revision" "$2"
    args:
      - {{inputValue: manifest}}
      - {{outputPath: uri}}
      - {{outputPath: revision}}
"""


def rendered() -> dict[Path, str]:
    """Return every rendered file and its text."""
    script = _indented(SCRIPT.read_text(), 8)
    by_script = _HEAD.format(source="apply-and-wait.sh")
    return {
        HERE / "argocd" / "argocd-cm.yaml": _HEAD.format(source="both health.lua files")
        + ARGOCD_CM.format(
            health=_indented(HEALTH.read_text(), 4), application_health=_indented(APPLICATION_HEALTH.read_text(), 4)
        ),
        HERE / "pipelines" / "tekton-task.yaml": by_script + TEKTON.format(script=script, image=KUBECTL_IMAGE),
        HERE / "pipelines" / "kubeflow-component.yaml": by_script + KUBEFLOW.format(script=script, image=KUBECTL_IMAGE),
    }


def _indented(text: str, spaces: int) -> str:
    return "".join(f"{' ' * spaces}{line}" if line.strip() else line for line in text.splitlines(keepends=True))


def main() -> int:
    """Write the rendered files, or with --check compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is out of date")
    check = parser.parse_args().check
    stale = [file for file, text in rendered().items() if not file.exists() or file.read_text() != text]
    for file in stale:
        if check:
            sys.stdout.write(f"{file.relative_to(HERE.parent)} is out of date: run `make generate`\n")
        else:
            file.write_text(rendered()[file])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
