"""Textual inversion: a new word is taught to a frozen model from a few images (Gal et al. 2022,
https://arxiv.org/abs/2208.01618).

Only the vectors of the new word are trained: they are spliced into the embedding look-up, and no other number of the
model has a gradient. `training` is the loop, `token_model` the frozen model with the word, `artifacts` what remains.
"""
