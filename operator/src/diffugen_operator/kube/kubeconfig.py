"""Which API server to connect to, and as which user: from a kubeconfig, or from the pod's service account.

The sources, in this order; only the first that exists is used:

1. exactly the file that `--kubeconfig` names;
2. the files of $KUBECONFIG, merged as kubectl does: the first value of a name wins;
3. the service account that Kubernetes mounts into a pod;
4. ~/.kube/config.

Paths in a kubeconfig are relative to its folder.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DEFAULT_FILE = "~/.kube/config"
_LISTS = {"contexts": "context", "clusters": "cluster", "users": "user"}


class LoginError(Exception):
    """There are no usable credentials; the message says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecPlugin:
    """A program that prints an ExecCredential (client.authentication.k8s.io)."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    """Additional environment variables."""
    api_version: str
    cluster: Mapping[str, Any] | None = None
    """The description of the cluster for the program, if it requires one (`provideClusterInfo`)."""
    hint: str = ""
    """How to install it, from the kubeconfig."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """An API server, and the login for it. Texts are empty if they are not set."""

    source: str
    """Where it was read from, for messages."""
    context: str = ""
    """The kubeconfig's context."""
    server: str
    ca: str = ""
    """The certificate authority's PEM."""
    ca_file: str = ""
    insecure: bool = False
    tls_server_name: str = ""
    proxy: str = ""
    token: str = ""
    token_file: str = ""
    username: str = ""
    password: str = ""
    certificate: str = ""
    """The client certificate's PEM."""
    key: str = ""
    exec_plugin: ExecPlugin | None = None


def find_access(kubeconfig: str, context: str, environ: Mapping[str, str] = os.environ) -> Access:
    """Return the API server to connect to. Raises LoginError.

    Args:
        kubeconfig: the file of `--kubeconfig`; empty if it is not set.
        context: the context of `--context`; empty for the current one.
        environ: the environment, for $KUBECONFIG.
    """
    if kubeconfig:
        if not Path(kubeconfig).expanduser().is_file():
            raise LoginError(f"there is no kubeconfig {kubeconfig}: --kubeconfig must name a file")
        return read_kubeconfig([kubeconfig], context)
    # kubectl ignores missing files of the variable too, but all of them may not be missing.
    named = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part.strip()]
    if named:
        there = [part for part in named if Path(part).expanduser().is_file()]
        if not there:
            raise LoginError(f"$KUBECONFIG names no file that exists: {', '.join(named)}")
        return read_kubeconfig(there, context)
    in_pod = None if context else _service_account(environ)
    if in_pod is not None:
        return in_pod
    if Path(_DEFAULT_FILE).expanduser().is_file():
        return read_kubeconfig([_DEFAULT_FILE], context)
    raise LoginError("there is no service account and no kubeconfig: set --kubeconfig or KUBECONFIG")


def read_kubeconfig(files: Sequence[str], context: str = "") -> Access:
    """Return the access that a context of these files describes. Raises LoginError."""
    source = os.pathsep.join(files)
    current, found = "", {kind: dict[str, Any]() for kind in _LISTS}
    for file in files:
        config, folder = _load(file), Path(file).expanduser().absolute().parent
        current = current or str(config.get("current-context") or "")
        for kind, key in _LISTS.items():
            for item in config.get(kind) or ():
                if isinstance(item, Mapping) and "name" in item:
                    found[kind].setdefault(str(item["name"]), (item.get(key) or {}, folder))
    name = context or current
    if not name:
        raise LoginError(f"the kubeconfig {source} has no current context: set --context")
    if name not in found["contexts"]:
        known = ", ".join(sorted(found["contexts"])) or "none"
        raise LoginError(f"the kubeconfig {source} has no context {name!r}; it has: {known}")
    chosen, _ = found["contexts"][name]
    cluster, cluster_folder = _named(found["clusters"], chosen, "cluster", name, source)
    user, user_folder = _named(found["users"], chosen, "user", name, source) if chosen.get("user") else ({}, Path())
    if not cluster.get("server"):
        raise LoginError(f"the kubeconfig {source}: cluster {chosen['cluster']!r} has no server")
    if user.get("auth-provider"):
        raise LoginError(
            f"the kubeconfig {source}: user {chosen['user']!r} has an auth-provider, which is not supported: use an "
            "exec plugin, a token or a client certificate"
        )
    access = Access(
        source=source,
        context=name,
        server=str(cluster["server"]).rstrip("/"),
        ca=_pem(cluster.get("certificate-authority-data"), "certificate-authority-data", source),
        ca_file=_path(cluster.get("certificate-authority"), cluster_folder),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=str(cluster.get("tls-server-name") or ""),
        proxy=str(cluster.get("proxy-url") or ""),
        exec_plugin=_exec_plugin(user.get("exec"), user_folder, cluster, source),
    )
    return _with_user(access, user, user_folder)


def _with_user(access: Access, user: Mapping[str, Any], folder: Path) -> Access:
    return replace(
        access,
        # As in client-go: a token file precedes a token, and data precedes a file.
        token="" if user.get("tokenFile") else str(user.get("token") or ""),
        token_file=_path(user.get("tokenFile"), folder),
        username=str(user.get("username") or ""),
        password=str(user.get("password") or ""),
        certificate=_pem(user.get("client-certificate-data"), "client-certificate-data", access.source)
        or _content(_path(user.get("client-certificate"), folder), access.source),
        key=_pem(user.get("client-key-data"), "client-key-data", access.source)
        or _content(_path(user.get("client-key"), folder), access.source),
    )


def _service_account(environ: Mapping[str, str]) -> Access | None:
    """Return the access of a pod's service account; None outside of pods."""
    token, authority = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    if not token.exists():
        return None
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    return Access(
        source="the pod's service account",
        server=f"https://{host}:{port}" if host else "https://kubernetes.default.svc",
        ca_file=str(authority) if authority.exists() else "",
        token_file=str(token),
    )


def _load(file: str) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LoginError(f"the kubeconfig {file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(config, Mapping):
        raise LoginError(f"the kubeconfig {file} is not a map of YAML")
    return config


def _named(
    known: Mapping[str, Any], context: Mapping[str, Any], kind: str, name: str, source: str
) -> tuple[Mapping[str, Any], Path]:
    wanted = str(context.get(kind) or "")
    if wanted not in known:
        raise LoginError(f"the kubeconfig {source}: context {name!r} names the {kind} {wanted!r}, which is not there")
    found: tuple[Mapping[str, Any], Path] = known[wanted]
    return found


def _exec_plugin(plugin: Any, folder: Path, cluster: Mapping[str, Any], source: str) -> ExecPlugin | None:
    if not plugin:
        return None
    command, version = str(plugin.get("command") or ""), str(plugin.get("apiVersion") or "")
    if not command or not version:
        raise LoginError(f"the kubeconfig {source}: users[].user.exec needs a command and an apiVersion")
    if plugin.get("interactiveMode") == "Always":
        raise LoginError(f"the kubeconfig {source}: the exec plugin {command} asks questions, and nobody can answer")
    info = {key: value for key, value in cluster.items() if key != "extensions"}
    for extension in cluster.get("extensions") or ():
        if extension.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = extension.get("extension")
    return ExecPlugin(
        # As kubectl: a path is relative to the kubeconfig, and a bare name is looked up in $PATH.
        command=_path(command, folder) if os.sep in command else command,
        args=tuple(str(arg) for arg in plugin.get("args") or ()),
        env=tuple((str(item["name"]), str(item.get("value") or "")) for item in plugin.get("env") or ()),
        api_version=version,
        cluster=info if plugin.get("provideClusterInfo") else None,
        hint=str(plugin.get("installHint") or "").strip(),
    )


def _path(value: Any, folder: Path) -> str:
    return str(folder / Path(str(value)).expanduser()) if value else ""


def _pem(value: Any, field: str, source: str) -> str:
    if not value:
        return ""
    try:
        return base64.b64decode(str(value), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise LoginError(f"the kubeconfig {source}: {field} is not base64 of a PEM") from error


def _content(path: str, source: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LoginError(f"the kubeconfig {source}: {path} cannot be read: {error}") from error
