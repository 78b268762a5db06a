"""Writes the tokens and kubeconfigs of a cluster's users.

The cluster's own components are members of `system:masters`. Each has its own name, so that the audit log shows which
one made a request. `operator` is in no group: a test or a chart grants its rights.
"""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from devcluster.layout import StateDirectory

_ADMINISTRATORS = "system:masters"
_GROUPS: Mapping[str, str] = {
    "admin": _ADMINISTRATORS,
    "controller-manager": _ADMINISTRATORS,
    "scheduler": _ADMINISTRATORS,
    "node": _ADMINISTRATORS,
    "operator": "",
}


def write_tokens(path: Path) -> dict[str, str]:
    """Write the API server's token file; return each user's token by name."""
    tokens = {user: secrets.token_hex(16) for user in _GROUPS}
    lines = [f'{token},{user},{user},"{_GROUPS[user]}"' for user, token in tokens.items()]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return tokens


def write_kubeconfigs(directory: StateDirectory, *, server: str, tokens: Mapping[str, str]) -> None:
    """Write one kubeconfig for each user; the administrator's has the usual name."""
    for user, token in tokens.items():
        path = directory.kubeconfig if user == "admin" else directory.kubeconfig_of(user)
        path.touch(mode=0o600)
        path.write_text(_kubeconfig(directory.certificates / "apiserver.crt", server=server, user=user, token=token))


def _kubeconfig(certificate: Path, *, server: str, user: str, token: str) -> str:
    # JSON is YAML. The file has the certificate's path, because the API server creates the certificate later.
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": {"server": server, "certificate-authority": str(certificate)}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": user}}],
        "current-context": "devcluster",
    }
    return json.dumps(config, indent=1) + "\n"
