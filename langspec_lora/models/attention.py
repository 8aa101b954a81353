"""Attention that calls its projection modules, so that adapted projections are always used."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fairseq.modules import MultiheadAttention
from torch import Tensor

from langspec_lora.lora.functional import compute_type

FUSE_STEPS_ON_CPU = False
"""Whether incremental decoding uses the fused attention on a CPU too. There, torch's kernel takes longer for one query
position than two batched products (2.3 against 1.5 ms for 115 hypotheses of 16 heads)."""


class AdaptedAttention(MultiheadAttention):
    """fairseq's attention for adapted projections.

    In training and in the encoder, the stock ``forward`` passes ``q_proj.weight`` and the other weights directly to
    ``F.multi_head_attention_forward`` and does not call the modules. This class calls the modules and then torch's
    fused ``scaled_dot_product_attention``, unless the attention weights are needed: in self-attention and
    cross-attention, in training, and in incremental decoding on a GPU. In self-attention on whole sentences it uses the
    same operations as the stock class, so that with B = 0 the results are equal, bit for bit. Everything else uses
    fairseq's explicit path, which calls the modules: requests for attention weights (by default of the last decoder
    layer), and incremental decoding on a CPU.
    """

    @classmethod
    def convert(cls, attention: MultiheadAttention) -> None:
        """Converts a stock attention module to this class, in place; its parameters keep their names."""
        attention.__class__ = cls
        attention._set_skip_embed_dim_check()  # fairseq's switch to the explicit path

    def forward(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        key_padding_mask: Tensor | None = None,
        incremental_state: dict | None = None,
        need_weights: bool = True,
        static_kv: bool = False,
        attn_mask: Tensor | None = None,
        before_softmax: bool = False,
        need_head_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See :meth:`fairseq.modules.MultiheadAttention.forward`; ``query`` is ``(tgt_len, batch, embed_dim)``."""
        query, key, value = _cast_once(query, key, value)  # type: ignore[assignment]  # a query is never None
        wants_weights = need_weights or need_head_weights or before_softmax
        if not wants_weights and self._can_be_fused(query, incremental_state is not None, static_kv):
            memory = query if self.self_attention else key
            return self._fused(query, memory, key_padding_mask, incremental_state, static_kv, attn_mask), None
        return super().forward(
            query,
            key,
            value,
            key_padding_mask=key_padding_mask,
            incremental_state=incremental_state,
            need_weights=need_weights,
            static_kv=static_kv,
            attn_mask=attn_mask,
            before_softmax=before_softmax,
            need_head_weights=need_head_weights,
        )

    def _can_be_fused(self, query: Tensor, incremental: bool, static_kv: bool) -> bool:
        if self.bias_k is not None or self.add_zero_attn or self.use_xformers or self.onnx_trace:
            return False
        if incremental and query.device.type == "cpu" and not FUSE_STEPS_ON_CPU:
            return False
        return (self.self_attention and not static_kv) or self.encoder_decoder_attention

    def _fused(
        self,
        query: Tensor,
        memory: Tensor | None,
        padding: Tensor | None,
        incremental_state: dict | None,
        static_kv: bool,
        attn_mask: Tensor | None,
    ) -> Tensor:
        time, batch, width = query.shape
        saved = {} if incremental_state is None else self._get_input_buffer(incremental_state)
        q = self._heads(self.q_proj(query))
        new = None
        if not (static_kv and "prev_key" in saved):
            assert memory is not None  # only known keys come without it
            if self.encoder_decoder_attention and memory.size(1) == batch:
                # fairseq's generator repeats the source for each beam, but its keys and values are needed only once.
                memory = memory[:, :: self.beam_size]
                padding = None if padding is None else padding[:: self.beam_size]
            new = self._heads(self.k_proj(memory)), self._heads(self.v_proj(memory))
        if incremental_state is not None:
            new, padding = self._remember(incremental_state, saved, new, padding, static_kv)
        assert new is not None
        k, v = map(self._by_sentence, new)
        beams = batch // len(k)
        if beams > 1:  # that ask the same keys: they become further positions of one query
            q = (
                q.view(len(k), beams, self.num_heads, time, -1)
                .transpose(1, 2)
                .reshape(len(v), self.num_heads, beams * time, -1)
            )
        dropping = self.training or self.dropout_module.apply_during_inference
        attended = F.scaled_dot_product_attention(
            self._by_sentence(q),
            k,
            v,
            attn_mask=self._additive_mask(padding, attn_mask, q),
            dropout_p=self.dropout_module.p if dropping else 0.0,
        )  # (batch, heads, time, head_dim), or (batch / beams, heads, beams * time, head_dim)
        if beams > 1:
            attended = attended.unflatten(2, (beams, time)).transpose(1, 2).flatten(0, 1)
        attended = attended.permute(2, 0, 1, 3).contiguous().view(time * batch, width)
        return self.out_proj(attended).view(time, batch, width)

    def _heads(self, projected: Tensor) -> Tensor:
        """``(time, batch, embed_dim)`` as ``(batch * heads, time, head_dim)``."""
        time, batch, _ = projected.shape
        return projected.view(time, batch * self.num_heads, self.head_dim).transpose(0, 1)

    def _by_sentence(self, heads: Tensor) -> Tensor:
        """``(batch * heads, time, head_dim)`` as ``(batch, heads, time, head_dim)``."""
        return heads if heads.dim() == 4 else heads.view(-1, self.num_heads, *heads.shape[1:])

    def _remember(
        self,
        incremental_state: dict,
        saved: dict,
        new: tuple[Tensor, Tensor] | None,
        padding: Tensor | None,
        static: bool,
    ) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """Joins keys and values with those of earlier steps, in the format in which fairseq keeps and reorders them."""
        if "prev_key" in saved:
            # In three dimensions: torch takes tensors with four for images and joins them at half the speed.
            before = saved["prev_key"].flatten(0, 1), saved["prev_value"].flatten(0, 1)
            if static or new is None:
                new = before
            else:
                new = torch.cat((before[0], new[0]), dim=1), torch.cat((before[1], new[1]), dim=1)
        assert new is not None  # known keys are saved
        k, v = map(self._by_sentence, new)
        padding = self._append_prev_key_padding_mask(
            padding, saved.get("prev_key_padding_mask"), batch_size=k.size(0), src_len=k.size(2), static_kv=static
        )
        state = {"prev_key": k, "prev_value": v, "prev_key_padding_mask": padding}
        self._set_input_buffer(incremental_state, state)
        return (k, v), padding

    def _additive_mask(self, padding: Tensor | None, attn_mask: Tensor | None, query: Tensor) -> Tensor | None:
        if attn_mask is not None:
            attn_mask = attn_mask.to(query.dtype)  # (time, time), 0 or -inf
        if padding is None:
            return attn_mask
        minus_inf = torch.zeros(padding.shape, dtype=query.dtype, device=query.device)
        minus_inf = minus_inf.masked_fill_(padding.to(torch.bool), float("-inf"))[:, None, None, :]
        # Expanded over the heads: some torch releases accept no mask that broadcasts there.
        minus_inf = minus_inf.expand(-1, self.num_heads, -1, -1)  # (batch, heads, 1, time)
        return minus_inf if attn_mask is None else attn_mask + minus_inf


def _cast_once(*inputs: Tensor | None) -> tuple[Tensor | None, ...]:
    """Under autocast, casts each tensor once, so that not every projection that reads it makes a copy."""
    distinct = {id(x): x for x in inputs if x is not None}
    casts = {key: x.to(compute_type(x)) for key, x in distinct.items()}
    return tuple(None if x is None else casts[id(x)] for x in inputs)
