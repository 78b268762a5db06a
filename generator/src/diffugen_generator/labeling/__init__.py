"""Labels from the diffusion model's own attention.

`words` finds the classes in a prompt; `attention`, `capture` and `refinement` look at an image with the
model (torch) and leave `evidence`; `decision` turns evidence into instances, on a CPU and without torch, so
that a new threshold relabels a dataset without drawing or looking again.
"""
