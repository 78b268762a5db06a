"""Textual inversion: trains a new word for a frozen model on a few images (Gal et al. 2022,
https://arxiv.org/abs/2208.01618).

Only the vectors of the new word are trained. They are inserted into the embedding look-up, and no other parameter of
the model has a gradient. `training` is the loop, `token_model` the frozen model with the word, `artifacts` the results.
"""
