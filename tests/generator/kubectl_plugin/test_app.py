"""How the verbs call kubectl. tests/cluster/test_kubectl_plugin.py shows that kubectl accepts these calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from diffugen_generator.kubectl_plugin.app import app
from tests.operator.lives import Life, a_life

Call = Callable[..., tuple[Result, list[list[str]]]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call a verb with a kubectl that records its arguments and answers every `get` with one dataset."""
    recorded = tmp_path / "calls"
    program = tmp_path / "kubectl"
    program.write_text(
        "#!/bin/sh\n"
        f'for word in "$@"; do printf "%s\\t" "$word"; done >>{recorded}; echo >>{recorded}\n'
        f'case " $* " in *" get "*) cat {tmp_path}/answer.json ;; *" logs "*) exit 3 ;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def run(*arguments: str, life: Life | None = None) -> tuple[Result, list[list[str]]]:
        (tmp_path / "answer.json").write_text(json.dumps((life or a_life().until_drawing()).raw))
        recorded.write_text("")
        result = CliRunner().invoke(app, list(arguments))
        return result, [line.split("\t")[:-1] for line in recorded.read_text().splitlines()]

    return run


def test_logs_select_pods_by_stage_step_and_shard_and_exit_as_kubectl_does(call: Call) -> None:
    arguments = ["logs", "shapes", "--stage", "base", "--step", "stage", "--index", "4", "--follow", "--tail", "9"]
    result, calls = call(*arguments, "-n", "vision")

    assert result.exit_code == 3
    selector = (
        "diffugen.dev/dataset=shapes,diffugen.dev/stage=base,diffugen.dev/step=stage,"
        "batch.kubernetes.io/job-completion-index=4"
    )
    assert calls[-1][:3] == ["--namespace=vision", "logs", f"--selector={selector}"]
    assert {"--follow", "--tail=9", "--container=generator", "--prefix"} <= set(calls[-1])


def test_only_three_verbs_change_anything(call: Call) -> None:
    for arguments in (["status"], ["status", "shapes"], ["explain", "shapes"], ["logs", "shapes"]):
        _, calls = call(*arguments)
        assert {words[0] for words in calls} <= {"get", "logs"}, arguments
    assert call("retry", "shapes")[1][0][:2] == ["annotate", "labeleddatasets.diffugen.dev"]
    for verb, value in (("suspend", "true"), ("resume", "false")):
        words = call(verb, "shapes")[1][0]
        assert words[:3] == ["patch", "labeleddatasets.diffugen.dev", "shapes"]
        assert words[-1] == f'{{"spec": {{"suspend": {value}}}}}'


def test_context_and_kubeconfig_reach_kubectl(call: Call) -> None:
    _, calls = call("status", "shapes", "--context", "kind", "--kubeconfig", "/k")

    assert calls[0][:3] == ["--context=kind", "--kubeconfig=/k", "get"]


@pytest.mark.parametrize(
    ("life", "code"), [(lambda: a_life().until_published(), 0), (lambda: a_life(output={}).settle(), 1)]
)
def test_watching_ends_with_an_exit_code_for_the_final_state(call: Call, life: Callable[[], Life], code: int) -> None:
    assert call("status", "shapes", "--watch", life=life())[0].exit_code == code
