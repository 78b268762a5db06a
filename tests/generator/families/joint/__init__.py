"""A second family: a joint-attention transformer on patches of pixels, with flow matching. Tiny, random weights."""
