"""How each kind of stage derives its samples' prompts from those of its source: one module a kind, and a registry."""
