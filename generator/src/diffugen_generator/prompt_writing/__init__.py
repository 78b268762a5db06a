"""Writes prompts with a language model, for `spec.prompts.file`."""
