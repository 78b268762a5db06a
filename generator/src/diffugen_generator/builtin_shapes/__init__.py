"""What `builtin://shapes` was trained to draw, and the oracle that finds it in images."""
