"""Detectors, CLIP and safety checkers, each a `Labeler`.

Torch is imported here, and ultralytics where a manifest asks for it.
"""
