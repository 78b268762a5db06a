"""A causal language model of transformers as a chat model: batched, in one device's memory, deterministic by its seed.

A request goes through the tokenizer's chat template. A model without one gets it as a plain instruction, in the form of
Alpaca (Taori et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer

from diffugen_generator.labeling.detectors.loading import load_model, load_part, unsupported
from diffugen_generator.models.side_models import SideModel

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_THOUGHT: Final = "<think>"
_TOP_P: Final = 0.95
"""Nucleus sampling (Holtzman et al. 2020): the least likely words, 5 % in sum, are never chosen."""


class TransformersChat:
    """A loaded chat model."""

    def __init__(
        self, folder: SideModel, device: torch.device, *, dtype: str, temperature: float, most_tokens: int
    ) -> None:
        """Load a model; raise `SpecError` if it cannot be loaded.

        Args:
            folder: the model as it was found.
            device: where it runs.
            dtype: `auto` or one of `DTYPES`; `auto` is bfloat16 on a GPU and float32 on a CPU.
            temperature: 0 takes the likeliest token each time; more varies more.
            most_tokens: the longest reply.
        """
        number = DTYPES.get(dtype, torch.bfloat16 if device.type == "cuda" else torch.float32)
        self._folder = folder
        self._tokenizer = load_part(AutoTokenizer, folder)
        self._model = load_model(AutoModelForCausalLM, folder, device, dtype=number)
        self._device = device
        self._settings: dict[str, Any] = {"max_new_tokens": most_tokens, "do_sample": temperature > 0}
        if temperature > 0:
            self._settings |= {"temperature": temperature, "top_p": _TOP_P, "top_k": 0}
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            if self._tokenizer.eos_token is None:
                raise unsupported(folder, "its tokenizer has neither a token for padding nor one for the end")
            self._tokenizer.pad_token = self._tokenizer.eos_token

    @torch.inference_mode()
    def replies(self, requests: Sequence[str], *, seed: int) -> list[str]:
        """Return one reply for each request; raise `SpecError` if the template or the numbers of the model fail."""
        texts = [self._text(each) for each in requests]
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not self._templated)
        tokens, mask = inputs["input_ids"].to(self._device), inputs["attention_mask"].to(self._device)
        gpus = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(gpus):
            torch.manual_seed(seed)
            out = self._model.generate(
                input_ids=tokens,
                attention_mask=mask,
                pad_token_id=self._tokenizer.pad_token_id,
                logits_processor=[self._check_scores],
                **self._settings,
            )
        replies: list[str] = self._tokenizer.batch_decode(out[:, tokens.shape[1] :], skip_special_tokens=True)
        # some templates begin the thoughts of the model, and the reply has only their end
        begun = [_THOUGHT if text.rstrip().endswith(_THOUGHT) else "" for text in texts]
        return [f"{begin}{reply}" for begin, reply in zip(begun, replies, strict=True)]

    @property
    def _templated(self) -> bool:
        return bool(self._tokenizer.chat_template)

    def _text(self, request: str) -> str:
        if not self._templated:
            return f"### Instruction:\n{request}\n\n### Response:\n"
        messages = [{"role": "user", "content": request}]
        try:  # `enable_thinking` is an option of some templates; others do not read it
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except (TemplateError, LookupError, TypeError, ValueError) as error:  # the code of a template can raise these
            raise unsupported(
                self._folder, f"its chat template fails: {error}", "name a model with a template for one user message"
            ) from error
        return text

    def _check_scores(self, _tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of the next tokens [requests, vocabulary]; raise `SpecError` if any is no number."""
        if torch.isnan(scores).any():
            raise unsupported(
                self._folder, f"its outputs overflow in {self._model.dtype}", "give --dtype float32, or bfloat16"
            )
        return scores
