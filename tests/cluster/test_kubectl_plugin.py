"""`kubectl labeleddataset`, as a user calls it, on a real cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import urllib3

from tests.cluster.pods import eventually
from tests.cluster.test_kills import slow_stage
from tests.cluster.world import World


def plugin(world: World, *arguments: str) -> tuple[int, str]:
    """Call the plugin through kubectl; returns exit code and all output."""
    done = subprocess.run(
        kubectl_words(world, *arguments),
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout


def kubectl_words(world: World, *arguments: str) -> list[str]:
    """The words of a call of the plugin through kubectl."""
    where = [f"--kubeconfig={world.cluster.kubeconfig}", "--namespace", world.namespace]
    return ["kubectl", "labeleddataset", *arguments, *where]


def surroundings() -> dict[str, str]:
    """The environment of a call."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "160"}


def test_the_plugin_shows_and_controls_a_dataset_in_each_phase(running: World) -> None:
    assert plugin(running, "status", "shapes")[0] == 1
    assert "not found" in plugin(running, "explain", "shapes")[1]

    running.apply(stages=[slow_stage()], run={"samplesPerShard": 4, "parallelism": 1})
    running.wait("drawing", lambda d: d["status"].get("summary", {}).get("reason") == "Drawing")
    code, said = plugin(running, "status", "shapes")
    assert code == 0
    assert re.search(r"^base +txt2img +Running .* \d/8 ", said, re.MULTILINE), said
    assert "is running" in plugin(running, "explain", "shapes")[1]

    assert plugin(running, "suspend", "shapes") == (0, "shapes: suspended\n")
    running.wait("suspended", lambda d: d["status"]["summary"]["state"] == "Suspended")
    assert "next: kubectl labeleddataset resume shapes" in plugin(running, "explain", "shapes")[1]
    assert plugin(running, "resume", "shapes") == (0, "shapes: resumed\n")

    code, said = plugin(running, "status", "shapes", "--watch")
    assert code == 0, said
    published = running.get()["status"]["dataset"]
    assert f"at {published['uri']}" in said
    assert re.search(r"^shapes +Succeeded ", plugin(running, "status")[1], re.MULTILINE)

    code, address = plugin(running, "open", "shapes", "--no-browser", "--file", "contact-sheet.png")
    assert code == 0, address
    image = urllib3.request("GET", address.strip(), timeout=30)
    assert (image.status, image.data[:4]) == (200, b"\x89PNG")
    assert urllib3.request("GET", address.partition("?")[0], timeout=30).status == 403, "only the signature opens it"

    report = [*kubectl_words(running, "open", "shapes"), "--no-browser"]
    with subprocess.Popen(report, env=surroundings(), stdout=subprocess.PIPE, text=True) as served:
        try:
            assert served.stdout
            page = served.stdout.readline().strip()
            folder = page.removesuffix("report.html")
            for path in ("report.html", "report/summary.js", "report/thumbnails/00000.jpg"):
                answer = urllib3.request("GET", folder + path, timeout=30)
                assert (answer.status, len(answer.data) > 100) == (200, True), path
        finally:
            served.terminate()

    code, said = plugin(running, "logs", "shapes", "--step", "publish")
    assert code == 0, said


def test_the_plugin_explains_and_retries_a_stalled_dataset(running: World) -> None:
    running.apply(prompts={"samplesPerPrompt": 1}, output={"s3": {"bucket": "later-there"}})
    running.wait_stalled("BucketNotFound")

    _, said = plugin(running, "explain", "shapes")
    assert "It is stalled, BucketNotFound: " in said
    assert "next: fix what it names, then: kubectl labeleddataset retry shapes" in said
    assert plugin(running, "status", "shapes", "--watch")[0] == 1

    running.cluster.make_bucket("later-there")
    assert plugin(running, "retry", "shapes") == (0, "shapes: asked for a retry\n")
    running.wait_ready()
    for item in running.store.list_objects("later-there", recursive=True):
        running.store.remove_object("later-there", str(item.object_name))
    running.store.remove_bucket("later-there")


def test_a_change_of_a_dataset_from_git_gets_a_warning(world: World) -> None:
    world.apply()
    patch = '{"metadata":{"labels":{"from":"git"}}}'
    world.kubectl(
        "patch", "lds/shapes", "-n", world.namespace, "--type=merge", "-p", patch, "--field-manager=argocd-controller"
    )

    code, said = plugin(world, "suspend", "shapes")
    assert code == 0
    assert "argocd-controller manages it: set spec.suspend in Git too" in said
    assert eventually(lambda: world.get()["spec"]["suspend"]) is True
    assert "No operator has seen this spec yet" in plugin(world, "explain", "shapes")[1]
