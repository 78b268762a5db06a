"""Stages that draw from one another, on a real control plane: each begins when its source is done."""

from __future__ import annotations

import gzip
import json
from typing import Any

from tests.cluster.world import World

SETTINGS = {"steps": 12, "guidanceScale": 3}


def test_a_graph_of_three_stages_runs_to_ready_in_its_own_order(new_world: Any) -> None:
    world: World = new_world("graph")
    world.operator.start()
    world.apply(
        stages=[
            {"name": "recolor", "inpaint": {"from": "sand", "replacements": {"ball": ["yellow ball"]}, **SETTINGS}},
            {"name": "sand", "img2img": {"from": "base", "variables": {"place": ["sand"]}, **SETTINGS}},
            {"name": "base", "txt2img": {"model": "builtin://shapes", **SETTINGS}},
        ],
        prompts={"templates": ["a {object} on {place}"], "variables": {"object": ["ball", "star"], "place": ["snow"]}},
        quality={"minInstances": 1},
    )

    world.wait_ready()

    stages = {stage["name"]: stage for stage in world.get()["status"]["stages"]}
    assert {name: (stage["kind"], stage["state"]) for name, stage in stages.items()} == {
        "recolor": ("inpaint", "Succeeded"),
        "sand": ("img2img", "Succeeded"),
        "base": ("txt2img", "Succeeded"),
    }
    assert {name: stage["samples"]["total"] for name, stage in stages.items()} == {"base": 4, "sand": 4, "recolor": 2}
    assert stages["base"]["completionTime"] <= stages["sand"]["startTime"]
    assert stages["sand"]["completionTime"] <= stages["recolor"]["startTime"]
    pointer = world.current()
    assert pointer is not None
    manifest = gzip.decompress(world.read(f"revisions/{pointer['revision']}/manifest.jsonl.gz"))
    lines = [json.loads(line) for line in manifest.splitlines()]
    stage_of = {line["id"]: line["stage"] for line in lines}
    drawn_from = {(line["stage"], stage_of[line["source"]]) for line in lines if "source" in line}
    assert drawn_from == {("sand", "base"), ("recolor", "sand")}
    world.operator.end()
