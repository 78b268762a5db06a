"""The credentials of a login: where they come from, and when to get them again.

A token file is read again once a minute, because the kubelet renews it. An exec plugin is run again before its
credential expires, and when the API server refuses it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from diffugen_operator.kube.kubeconfig import Access, ExecPlugin, LoginError

TOKEN_FILE_SECONDS = 60.0
"""How long a token that was read from a file is used."""

EXEC_SECONDS = 60.0
"""How long an exec plugin may take."""

LONGEST_MARGIN = timedelta(seconds=120)
"""A credential is renewed this long before it expires; a short-lived one, after four fifths of its life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a request carries. Texts are empty where they are not set."""

    authorization: str = ""
    """The value of the Authorization header."""
    certificate: str = ""
    """The client certificate's PEM."""
    key: str = ""
    renew_at: datetime | None = None
    """When to get another one; None: when this one is refused."""

    @property
    def identity(self) -> tuple[str, str]:
        """The parts that belong to a TLS connection: if they change, new connections are needed."""
        return self.certificate, self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """The service account of a token."""

    namespace: str
    name: str
    uid: str


def service_account_of(credential: Credential) -> ServiceAccount | None:
    """Return the service account that a credential's token names; None for any other credential.

    The token is a JSON Web Token (RFC 7519). Its signature is not checked: the API server does that.
    """
    parts = credential.authorization.removeprefix("Bearer ").split(".")
    try:
        _, claims, _ = parts
        content = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["kubernetes.io"]
        account = content["serviceaccount"]
        return ServiceAccount(namespace=str(content["namespace"]), name=str(account["name"]), uid=str(account["uid"]))
    except (KeyError, TypeError, ValueError):
        return None


async def obtain(access: Access, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Credential:
    """Return a fresh credential. Raises LoginError."""
    if access.exec_plugin is not None and not (access.token or access.token_file):
        return await _run(access, access.exec_plugin, now)
    authorization, renew_at = _bearer(access.token), None
    if access.token_file:
        authorization = _bearer(await asyncio.to_thread(_read, access.token_file))
        renew_at = now() + timedelta(seconds=TOKEN_FILE_SECONDS)
    elif access.username and not access.token:
        pair = base64.b64encode(f"{access.username}:{access.password}".encode()).decode()
        authorization = f"Basic {pair}"
    return Credential(authorization=authorization, certificate=access.certificate, key=access.key, renew_at=renew_at)


def _bearer(token: str) -> str:
    return f"Bearer {token}" if token else ""


def _read(file: str) -> str:
    try:
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise LoginError(f"the token file {file} cannot be read: {error}") from error
    if not token:
        raise LoginError(f"the token file {file} is empty")
    return token


async def _run(access: Access, plugin: ExecPlugin, now: Callable[[], datetime]) -> Credential:
    began = now()
    spec = {"interactive": False, **({"cluster": dict(plugin.cluster)} if plugin.cluster is not None else {})}
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": json.dumps(info)},
        )
    except OSError as error:
        hint = f" {' '.join(plugin.hint.split())}" if plugin.hint else ""
        raise LoginError(f"the exec plugin {plugin.command} of {access.source} cannot run: {error}.{hint}") from error
    try:
        async with asyncio.timeout(EXEC_SECONDS):
            printed, complaint = await process.communicate()
    except TimeoutError as error:
        raise LoginError(f"the exec plugin {plugin.command} did not end within {EXEC_SECONDS:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        words = " ".join(complaint.decode(errors="replace").split())[-300:]
        raise LoginError(f"the exec plugin {plugin.command} ended with exit code {process.returncode}: {words}")
    try:
        return _credential(json.loads(printed), plugin, began)
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        raise LoginError(f"the exec plugin {plugin.command} printed no ExecCredential: {error}") from error


def _credential(printed: Any, plugin: ExecPlugin, began: datetime) -> Credential:
    if printed.get("kind") != "ExecCredential" or printed.get("apiVersion") != plugin.api_version:
        raise ValueError(f"it must be of kind ExecCredential and apiVersion {plugin.api_version}")
    status = printed.get("status") or {}
    token, certificate = str(status.get("token") or ""), str(status.get("clientCertificateData") or "")
    if not token and not certificate:
        raise ValueError("its status has neither a token nor a client certificate")
    renew_at = None
    if expires := status.get("expirationTimestamp"):
        expires_at = datetime.fromisoformat(str(expires)).astimezone(UTC)
        renew_at = expires_at - min(LONGEST_MARGIN, max(timedelta(0), expires_at - began) / 5)
    return Credential(
        authorization=_bearer(token),
        certificate=certificate,
        key=str(status.get("clientKeyData") or ""),
        renew_at=renew_at,
    )
