"""The work of one shard: draw what is missing, look at it, decide its labels, store everything.

`working` is the flow; `studio` holds the model and is imported only when a picture must be drawn or looked
at.
"""

from diffugen_generator.stages.working import run_shard

__all__ = ["run_shard"]
