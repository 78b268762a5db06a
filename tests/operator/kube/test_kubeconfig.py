"""Only the named kubeconfig decides which cluster is used, and as which user."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffugen_operator.kube import kubeconfig
from diffugen_operator.kube.kubeconfig import Access, LoginError, find_access

PEM = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def _outside_of_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path / "no-service-account")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def written(file: Path, *, server: str = "https://one:6443", user: Any = None, **cluster: Any) -> str:
    config = {
        "current-context": "c",
        "contexts": [
            {"name": "c", "context": {"cluster": "c", "user": "u"}},
            {"name": "other", "context": {"cluster": "other", "user": "u"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": server, **cluster}},
            {"name": "other", "cluster": {"server": "https://other:6443"}},
        ],
        "users": [{"name": "u", "user": {"token": "t"} if user is None else user}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config))
    return str(file)


def found(file: str, context: str = "", **environ: str) -> Access:
    return find_access(file, context, environ)


def test_the_named_file_precedes_the_variable_the_service_account_and_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = written(tmp_path / "named", user={"exec": {"command": "aws", "apiVersion": "v1"}})
    variable = written(tmp_path / "variable", server="https://two:6443")
    written(tmp_path / "home" / ".kube" / "config", server="https://three:6443")
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("pod")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", account)

    assert found(named, KUBECONFIG=variable).server == "https://one:6443"
    assert found("", KUBECONFIG=variable).server == "https://two:6443"
    in_pod = found("", KUBERNETES_SERVICE_HOST="fd00::1")
    assert in_pod.server == "https://[fd00::1]:443"
    assert (in_pod.token_file, in_pod.token) == (str(account / "token"), ""), "a file is read again before it expires"
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path / "no-service-account")
    assert found("").server == "https://three:6443"


def test_the_context_is_the_current_one_or_the_one_that_is_named(tmp_path: Path) -> None:
    file = written(tmp_path / "named")

    assert found(file).context == "c"
    assert found(file, "other").server == "https://other:6443"


def test_files_of_the_variable_are_merged_and_the_first_value_wins(tmp_path: Path) -> None:
    first = written(tmp_path / "first")
    second = written(tmp_path / "second", server="https://two:6443")
    only_context = tmp_path / "context"
    only_context.write_text(yaml.safe_dump({"current-context": "other"}))

    assert found("", KUBECONFIG=f"{first}:{second}").server == "https://one:6443"
    assert found("", KUBECONFIG=f"{only_context}:/nowhere:{second}").server == "https://other:6443"


def test_paths_are_relative_to_the_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    plugin = {"command": "./bin/plugin", "apiVersion": "client.authentication.k8s.io/v1"}
    user = {"tokenFile": "token", "token": "old", "client-certificate": "c.pem", "exec": plugin}
    file = written(folder / "named", user=user, **{"certificate-authority": "ca.crt"})
    (folder / "c.pem").write_text(PEM)
    monkeypatch.chdir(tmp_path)

    access = found(file)

    assert (access.ca_file, access.token_file) == (str(folder / "ca.crt"), str(folder / "token"))
    assert access.certificate == PEM
    assert access.token == "", "a token file outweighs a token"
    assert access.exec_plugin is not None
    assert access.exec_plugin.command == str(folder / "bin" / "plugin")


def test_data_is_base64_of_a_pem(tmp_path: Path) -> None:
    file = written(tmp_path / "named", **{"certificate-authority-data": base64.b64encode(PEM.encode()).decode()})

    assert found(file).ca == PEM


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"auth-provider": {"name": "oidc"}}, "auth-provider, which is not supported: use an exec plugin"),
        ({"exec": {"command": "aws"}}, "needs a command and an apiVersion"),
        ({"exec": {"command": "aws", "apiVersion": "v1", "interactiveMode": "Always"}}, "nobody can answer"),
        ({"client-certificate-data": "%%%"}, "client-certificate-data is not base64"),
        ({"client-key": "/nowhere/key"}, "/nowhere/key cannot be read"),
    ],
)
def test_a_user_that_cannot_log_in_is_reported(tmp_path: Path, user: Any, words: str) -> None:
    with pytest.raises(LoginError, match=words):
        found(written(tmp_path / "named", user=user))


def test_a_missing_entry_is_reported_with_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(LoginError, match="no kubeconfig /nowhere/kubeconfig"):
        found("/nowhere/kubeconfig", KUBECONFIG=written(tmp_path / "variable"))
    with pytest.raises(LoginError, match="no context 'prod'; it has: c, other"):
        found(written(tmp_path / "named"), "prod")
    with pytest.raises(LoginError, match=r"\$KUBECONFIG names no file that exists: /nowhere"):
        found("", KUBECONFIG="/nowhere")
    with pytest.raises(LoginError, match="no service account and no kubeconfig"):
        found("")
    (tmp_path / "broken").write_text("a: [")
    with pytest.raises(LoginError, match="broken cannot be read"):
        found(str(tmp_path / "broken"))
