"""kubectl as a subprocess: what it prints, and its complaints as one error."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

RESOURCE = "labeleddatasets.diffugen.dev"
_UNKNOWN_KIND = "the server doesn't have a resource type"


class KubectlError(Exception):
    """kubectl refused or is not there; the message is a sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """kubectl with the flags that the user gave to the plugin."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    def run(self, *arguments: str) -> str:
        """Return what kubectl prints. Raises KubectlError with its complaint."""
        try:
            done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise KubectlError("kubectl is not on the PATH: install it, or add its folder to PATH") from None
        if done.returncode:
            raise KubectlError(done.stderr.strip() or f"kubectl {arguments[0]} ended with code {done.returncode}")
        return done.stdout

    def get(self, *arguments: str) -> Json:
        """Return `kubectl get … -o json`."""
        found: Json = json.loads(self.run("get", *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str) -> list[Json]:
        """Return the items of a list; none where the cluster does not know the kind."""
        try:
            items: list[Json] = self.get(*arguments)["items"]
        except KubectlError as error:
            if _UNKNOWN_KIND in str(error):
                return []
            raise
        return items

    def dataset(self, name: str) -> Json:
        """Return a LabeledDataset."""
        return self.get(RESOURCE, name)

    def datasets(self) -> list[Json]:
        """Return all LabeledDatasets of the namespace."""
        items: list[Json] = self.get(RESOURCE)["items"]
        return items

    def show(self, *arguments: str) -> int:
        """Let kubectl write to the terminal; returns its exit code."""
        return subprocess.run(self.command(*arguments), check=False).returncode

    @contextmanager
    def port_forward(self, service: str, namespace: str, port: int) -> Iterator[int]:
        """Forward a free local port to a Service while the context lasts; yields the local port."""
        command = Kubectl(namespace=namespace, context=self.context, kubeconfig=self.kubeconfig).command(
            "port-forward", f"service/{service}", f":{port}", "--address=127.0.0.1"
        )
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as forward:
            try:
                # Forwarding from 127.0.0.1:40123 -> 9000
                line = forward.stdout.readline() if forward.stdout else ""
                if "->" not in line:
                    forward.terminate()
                    complaint = forward.stderr.read().strip() if forward.stderr else ""
                    raise KubectlError(complaint or f"no port of service {service} was forwarded")
                yield int(line.partition(" -> ")[0].rpartition(":")[2])
            finally:
                forward.terminate()

    def command(self, *arguments: str) -> list[str]:
        """Return the command line."""
        flags = [("--namespace", self.namespace), ("--context", self.context), ("--kubeconfig", self.kubeconfig)]
        return ["kubectl", *(f"{flag}={value}" for flag, value in flags if value), *arguments]
