"""Detectors and CLIP, each a `Labeler`: torch is imported here, and ultralytics where a manifest asks for it."""
