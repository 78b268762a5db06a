"""A tiny language model with random weights, and a tokenizer that knows a few words: what chat tests run on."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ("a", "ball", "star", "red", "blue", "on", "snow", "sand", "with", "near", "big", "old")
SPECIAL = ("<unk>", "<end>", "<pad>")
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}a {% endif %}"
)


def a_chat_model(folder: Path, *, template: str | None = TEMPLATE, words: tuple[str, ...] = WORDS) -> str:
    """Write a model; return its path. Any word is about equally likely to follow any other."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", pad_token="<pad>", model_max_length=512
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                eos_token_id=1,
                pad_token_id=2,
                bos_token_id=None,
            )
        )
    network.save_pretrained(folder)
    return str(folder)
