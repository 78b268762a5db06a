"""Labels from the attention of the diffusion model. All modules of this folder use this notation of shapes:

| letter | meaning |
| --- | --- |
| `b` | rows of a batch: images. With guidance a network gets 2b rows, those of the negative texts first |
| `c, h, w` | channels, height and width of latents; `h, w` of a map are those of the feature map it was read from |
| cells | positions of a feature map: `h * w` of them, row after row |
| heads, `d` | heads of an attention layer, and the width of one head's queries and keys |
| tokens | positions of a text as the network reads it: all windows of the text encoder, marks and padding included |
| columns | the targets of reading. `columns` [b, tokens, columns] has the weight of each token in each column |
| mentions | places of a prompt that name a class or a background word; a mention has one token or more |
| levels | resolutions of a UNet's feature maps: level 0 is that of the latents, each further level halves it |

The steps of a map: a layer's `softmax(q k^T) @ columns` [b, heads, cells, columns] -> its mean over heads, layers and,
with `inline`, steps [b, columns, h, w] -> mentions [b, mentions, h, w], each in 0..1 (`refinement`) -> the greatest
over a word's mentions, as 0..255 [words, h, w] (`word_maps.evidence_of`), which is stored.

A column of `posthoc` is a mention: the mean of its tokens. A column of `inline` is one token, because DAAM sets
negative values to 0 for each token, before the mean over a mention's tokens.
"""
