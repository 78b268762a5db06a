"""Labels from the diffusion model's attention, and from detectors.

`attention` and `detectors` run models on an image (with torch) and return `evidence`. `words` finds the tokens of the
words that a prompt mentions. `decide` turns evidence into instances, on a CPU and without torch. So a new threshold
relabels a dataset without running a model again.
"""
