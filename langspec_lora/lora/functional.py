"""The language-specific linear layer as one differentiable function: three matrix products, however many languages.

Autograd would read and write the activations once more for each step (the sum of both branches, the masking, the
padding of a slice, the sum of both input gradients), which costs more than the low-rank products. Here these sums are
part of the matrix products (``addmm``, ``baddbmm``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class LanguageSpecificLinearFunction(torch.autograd.Function):
    """``y = W x + b + B_l A_l x`` for a batch whose sentences select rows of the packed ``A`` and ``B``.

    Of the activations it keeps the input, if ``A`` or ``W`` need it, and the one between ``A`` and ``B``, as wide as
    the rank. It keeps no copy of ``W``: under autocast, ``W`` is cast again in the backward pass.

    Arguments of ``apply``, all by position:

    * input ``(time, batch, d_in)``, weight ``(d_out, d_in)``, bias ``(d_out,)`` or None;
    * A ``(R, f_in)`` and B ``(R, f_out)``, where ``f`` is the width of the slice, or ``d``;
    * rows, foreign: see :class:`langspec_lora.lora.routing.Selection`;
    * part: the slice of features that ``A`` reads and ``B`` adds to, or None for all;
    * dropped: what ``A`` reads instead of these features of the input, ``(time, batch, f_in)``, or None.

    Returns ``(time · batch, d_out)``. It is flat because fairseq's attention writes into it, which autograd forbids for
    a view that a function returns. Differentiable once, with respect to input, weight, bias, A, B and dropped.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        rows: Tensor | None,
        foreign: Tensor | None,
        part: slice | None,
        dropped: Tensor | None,
    ) -> Tensor:
        """Computes the layer; see the class."""
        dtype = compute_type(input)
        x = input.to(dtype)
        output = F.linear(x.flatten(0, 1), weight.to(dtype), None if bias is None else bias.to(dtype))
        read = _part(x, part) if dropped is None else dropped.to(dtype)
        hidden = _into_rank(read, _rows(a, rows, dtype), foreign)
        _add_product(_part(output.view(*x.shape[:2], -1), part), hidden, _rows(b, rows, dtype))
        ctx.part, ctx.shape, ctx.input_type = part, x.shape, input.dtype
        needs_x = ctx.needs_input_grad[1] or (ctx.needs_input_grad[3] and dropped is None)
        ctx.save_for_backward(x if needs_x else None, hidden, weight, a, b, rows, foreign, dropped)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments of :meth:`forward`; ``grad`` is ``(time · batch, d_out)``."""
        x, hidden, weight, a, b, rows, foreign, dropped = ctx.saved_tensors
        grad = grad.reshape(ctx.shape[0], ctx.shape[1], -1)
        needs_input, needs_weight, needs_bias, needs_a, needs_b, *_, needs_dropped = ctx.needs_input_grad
        dtype = grad.dtype
        grad_part = _part(grad, ctx.part)
        grad_input = grad_weight = grad_bias = grad_a = grad_b = grad_dropped = None
        if needs_b:
            grad_b = _to_packed(_outer(hidden, grad_part, rows), b, rows)
        if needs_input or needs_a or needs_dropped:
            grad_hidden = _into_rank(grad_part, _rows(b, rows, dtype), foreign)
        if needs_a:
            read = _part(x, ctx.part) if dropped is None else dropped.to(dtype)
            grad_a = _to_packed(_outer(grad_hidden, read, rows), a, rows)
        if needs_input:
            grad_input = grad.matmul(weight.to(dtype))
            if dropped is None:
                _add_product(_part(grad_input, ctx.part), grad_hidden, _rows(a, rows, dtype))
            grad_input = grad_input.to(ctx.input_type)
        if needs_weight:
            grad_weight = grad.flatten(0, 1).t().mm(x.flatten(0, 1)).to(weight.dtype)
        if needs_bias:
            grad_bias = grad.sum((0, 1)).to(weight.dtype)
        if needs_dropped:
            grad_dropped = grad.new_zeros(dropped.shape)
            _add_product(grad_dropped, grad_hidden, _rows(a, rows, dtype))
            grad_dropped = grad_dropped.to(dropped.dtype)
        return grad_input, grad_weight, grad_bias, grad_a, grad_b, None, None, None, grad_dropped


def reference(
    input: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, rows: Sequence[slice], part: slice
) -> Tensor:
    """Computes the same as :class:`LanguageSpecificLinearFunction` in plain torch, one sentence at a time.

    Args:
        input: ``(time, batch, d_in)``.
        weight: ``(d_out, d_in)``.
        bias: ``(d_out,)`` or None.
        a: ``(R, f_in)``, the LoRA A of all languages.
        b: ``(R, f_out)``, their LoRA B.
        rows: for each sentence, the rows of its language.
        part: the features that A reads and B adds to; ``slice(None)`` for all.

    Returns:
        ``(time, batch, d_out)``.
    """
    output = F.linear(input, weight, bias)
    for sentence, of_language in enumerate(rows):
        hidden = input[:, sentence, part] @ a[of_language].t()  # (time, rank)
        output[:, sentence, part] += hidden @ b[of_language]
    return output


_ASKS_BY_DEVICE = torch.__version__ >= "2.4"  # which deprecates the names below


def compute_type(input: Tensor) -> torch.dtype:
    """Autocast's dtype if autocast is on, else the dtype of the input."""
    if _ASKS_BY_DEVICE:
        device = input.device.type
        on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        return torch.get_autocast_dtype(device) if on else input.dtype
    if input.device.type == "cuda":
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else input.dtype
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else input.dtype


def _part(x: Tensor, part: slice | None) -> Tensor:
    return x if part is None else x[..., part]


def _rows(packed: Tensor, rows: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The rows in use: ``(R', features)`` if all sentences share them, else ``(batch, r_max, features)``."""
    if rows is None:
        return packed.to(dtype)
    used = packed.index_select(0, rows.view(-1)).to(dtype)
    return used if rows.size(0) == 1 else used.view(*rows.shape, -1)


def _into_rank(x: Tensor, matrix: Tensor, foreign: Tensor | None) -> Tensor:
    """Projects onto the rows: ``(time, batch, R')``, or ``(batch, time, r_max)`` for rows of each sentence."""
    if matrix.dim() == 2:
        hidden = F.linear(x, matrix)
        return hidden if foreign is None else hidden.masked_fill_(foreign, 0)
    hidden = x.transpose(0, 1).bmm(matrix.transpose(1, 2))
    return hidden if foreign is None else hidden.masked_fill_(foreign.unsqueeze(1), 0)


def _add_product(output: Tensor, hidden: Tensor, matrix: Tensor) -> None:
    """Adds hidden · matrix to ``output (time, batch, features)``, in place."""
    if matrix.dim() == 2:
        _rows_of(output).addmm_(hidden.flatten(0, 1), matrix)
    else:
        output.transpose(0, 1).baddbmm_(hidden, matrix)


def _rows_of(x: Tensor) -> Tensor:
    """``(time, batch, features)`` as ``(time · batch, features)``: a view, even of a slice of features."""
    return x.view(-1, x.size(-1))


def _outer(hidden: Tensor, x: Tensor, rows: Tensor | None) -> Tensor:
    """Gradient of the rows: ``(R', features)``, or ``(batch, r_max, features)`` for rows of each sentence."""
    if rows is None or rows.size(0) == 1:
        return hidden.flatten(0, 1).t().mm(x.flatten(0, 1))
    return hidden.transpose(1, 2).bmm(x.transpose(0, 1))


def _to_packed(grad: Tensor, packed: Tensor, rows: Tensor | None) -> Tensor:
    """Sums the gradients that several sentences give to the same row of the packed tensor."""
    if rows is not None:
        # The backward pass of F.embedding and not index_add: it is deterministic on CUDA.
        grad = torch.ops.aten.embedding_dense_backward(grad.view(*rows.shape, -1), rows, packed.size(0), -1, False)
    return grad.to(packed.dtype)
