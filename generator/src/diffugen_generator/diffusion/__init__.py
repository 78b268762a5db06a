"""Drawing with Stable Diffusion pipelines in diffusers' format.

`tokens` reads prompts and needs no torch; `components`, `texts` and `drawing` do, so they are imported only
where an image is drawn or looked at.
"""
