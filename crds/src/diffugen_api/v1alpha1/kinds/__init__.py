"""The kinds of stages: one class a kind, each with its fields, its source, and what of it an address covers."""
