"""Drawing images with a loaded model of any family.

`masks` needs no torch. `texts` and `drawing` need it, so they are imported only when an image is drawn or labeled.
"""
