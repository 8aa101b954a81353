"""Attention that calls its projection modules, so that adapted projections take part everywhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fairseq.modules import MultiheadAttention
from torch import Tensor

from langspec_lora.lora.functional import compute_type


class AdaptedAttention(MultiheadAttention):
    """fairseq's attention for adapted projections.

    The stock ``forward`` hands ``q_proj.weight`` and the others straight to ``F.multi_head_attention_forward`` in
    training and in the encoder, past the modules. Here the modules are called and the rest of that function follows,
    operation for operation, so that with B = 0 the results equal the stock ones bit for bit. Incremental decoding,
    cross-attention and requests for the attention weights take fairseq's own explicit path, which calls the modules.
    """

    @classmethod
    def convert(cls, attention: MultiheadAttention) -> None:
        """Turns a stock attention module into this class in place; its parameters and their names stay."""
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
        query, key, value = _cast_once(query, key, value)
        plain = incremental_state is None and not static_kv and not before_softmax
        if plain and self.self_attention and not need_weights and not need_head_weights and self._is_standard():
            return self._self_attention(query, key_padding_mask, attn_mask), None
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

    def _is_standard(self) -> bool:
        return self.bias_k is None and not self.add_zero_attn and not self.use_xformers and not self.onnx_trace

    def _self_attention(self, x: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None) -> Tensor:
        time, batch, width = x.shape
        query, key, value = (
            projection(x).view(time, batch * self.num_heads, self.head_dim).transpose(0, 1)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )  # each (batch * heads, time, head_dim)
        dropping = self.training or self.dropout_module.apply_during_inference
        attended = F.scaled_dot_product_attention(
            query.view(batch, self.num_heads, time, self.head_dim),
            key.view(batch, self.num_heads, time, self.head_dim),
            value.view(batch, self.num_heads, time, self.head_dim),
            attn_mask=self._additive_mask(key_padding_mask, attn_mask, query),
            dropout_p=self.dropout_module.p if dropping else 0.0,
        )  # (batch, heads, time, head_dim)
        attended = attended.permute(2, 0, 1, 3).contiguous().view(time * batch, width)
        return self.out_proj(attended).view(time, batch, width)

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
    """Under autocast, one copy in half precision of each tensor, in place of one in each projection that reads it."""
    distinct = {id(x): x for x in inputs if x is not None}
    casts = {key: x.to(compute_type(x)) for key, x in distinct.items()}
    return tuple(None if x is None else casts[id(x)] for x in inputs)
