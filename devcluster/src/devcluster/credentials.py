"""Who may talk to a cluster: its users' tokens and kubeconfigs.

The cluster's own parts are members of `system:masters`, each under its own name, so that the audit log tells
them apart. `operator` is a member of nothing: what it may do is for a test or a chart to grant.
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
    """Write the API server's token file; user name to token."""
    tokens = {user: secrets.token_hex(16) for user in _GROUPS}
    lines = [f'{token},{user},{user},"{_GROUPS[user]}"' for user, token in tokens.items()]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return tokens


def write_kubeconfigs(directory: StateDirectory, *, server: str, tokens: Mapping[str, str]) -> None:
    """One kubeconfig for each user, the administrator's under the usual name."""
    for user, token in tokens.items():
        path = directory.kubeconfig if user == "admin" else directory.kubeconfig_of(user)
        path.touch(mode=0o600)
        path.write_text(_kubeconfig(directory.certificates / "apiserver.crt", server=server, user=user, token=token))


def _kubeconfig(certificate: Path, *, server: str, user: str, token: str) -> str:
    # JSON is YAML. The path, not the certificate's text: the API server mints it after this file is written.
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": {"server": server, "certificate-authority": str(certificate)}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": user}}],
        "current-context": "devcluster",
    }
    return json.dumps(config, indent=1) + "\n"
