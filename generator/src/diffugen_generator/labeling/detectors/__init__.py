"""Detectors, CLIP and safety checkers, each a `Labeler`.

These modules import torch. ultralytics is imported only if a manifest needs it.
"""
