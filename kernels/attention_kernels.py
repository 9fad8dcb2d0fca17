"""Causal attention in Triton, forward and backward, after FlashAttention-2 (Dao, 2023): the scores never reach memory.

With S = Q K^T / sqrt(head_dim), masked to the past, P = softmax(S) by rows and O = P V, the gradients are

    dV = P^T dO      dP = dO V^T      dS = P * (dP - delta), where delta = rowsum(dO * O) is the mean of dP under P
    dQ = dS K / sqrt(head_dim)        dK = dS^T Q / sqrt(head_dim)

One program takes one head of one sequence and a block of its queries (O and dQ) or of its keys (dK and dV), and walks over
the blocks of the other side that the mask leaves. Those wholly in the past and those that the diagonal cuts are passes of
their own, so that only the latter pay for masking; keys beyond the end of a sequence lie beyond the diagonal as well, and
queries there are zeros, whose gradients vanish. Every sum is taken by one program in one order: gradients are the same
bits each time. (One pass over the backward's blocks would save two of its seven products, but then programs add to the
same dQ.)

The tensors, all contiguous: `qkv` and `grad_qkv` (batch, time, 3, heads, head_dim), queries, keys and values as one linear
layer writes them; `out` and `grad_out` (batch, time, heads, head_dim), O and dO, as the next one reads them; `logsumexp`,
in base 2 like the hardware's exponential, and `delta`, (batch, heads, time) in float32.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def locate(pair, heads, time, PARTS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Where the `pair`-th sequence and head begin in a (batch, time, PARTS, heads, head_dim) tensor."""
    row = PARTS * heads * HEAD_DIM
    return (pair // heads).to(tl.int64) * time * row + pair % heads * HEAD_DIM


@triton.jit
def tile(first, row, time, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr):
    """Offsets of ROWS rows, `row` elements apart, from row `first` on, and which of their elements exist."""
    rows, columns = tl.arange(0, ROWS)[:, None], tl.arange(0, PADDED)[None, :]
    return tl.cast(first, tl.int64) * row + (rows * row + columns), (first + rows < time) & (columns < HEAD_DIM)


@triton.jit
def read(base, first, row, time, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, CHECKED: tl.constexpr):
    """Load a (ROWS, PADDED) tile, with zeros where nothing exists. Without CHECKED, all its rows must exist."""
    offsets, exists = tile(first, row, time, ROWS, HEAD_DIM, PADDED)
    if CHECKED:
        return tl.load(base + offsets, mask=exists, other=0.0)
    elif HEAD_DIM < PADDED:
        return tl.load(base + offsets, mask=tl.arange(0, PADDED)[None, :] < HEAD_DIM, other=0.0)
    else:
        return tl.load(base + offsets)


@triton.jit
def write(base, values, first, row, time, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr):
    """Store what exists of a (ROWS, PADDED) tile in the type of the tensor."""
    offsets, exists = tile(first, row, time, ROWS, HEAD_DIM, PADDED)
    tl.store(base + offsets, values.to(base.dtype.element_ty), mask=exists)


@triton.jit(do_not_specialize=["heads", "time"])
def forward_kernel(
    qkv, out, logsumexp, heads, time,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`out` and `logsumexp` of QUERIES queries. KEYS divides QUERIES."""
    blocks = tl.cdiv(time, QUERIES)
    pair = tl.program_id(0) // blocks
    first = (blocks - 1 - tl.program_id(0) % blocks) * QUERIES  # the longest walks start first
    row, width = 3 * heads * HEAD_DIM, heads * HEAD_DIM
    queries = qkv + locate(pair, heads, time, 3, HEAD_DIM)
    keys, values = queries + width, queries + 2 * width
    rows, columns = first + tl.arange(0, QUERIES), tl.arange(0, KEYS)
    scale = LOG2_E / HEAD_DIM**0.5

    query = read(queries, first, row, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    result = tl.zeros((QUERIES, PADDED), tl.float32)
    for diagonal in tl.static_range(2):
        begin = first if diagonal else 0
        end = tl.minimum(first + QUERIES, time) if diagonal else first
        for start in tl.range(begin, end, KEYS):
            key = read(keys, start, row, time, KEYS, HEAD_DIM, PADDED, diagonal and not EVEN)
            value = read(values, start, row, time, KEYS, HEAD_DIM, PADDED, diagonal and not EVEN)
            scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
            if diagonal:
                scores = tl.where(rows[:, None] >= start + columns[None, :], scores, float("-inf"))
            higher = tl.maximum(largest, tl.max(scores, 1) * scale)
            weights = tl.exp2(scores * scale - higher[:, None])
            shrink = tl.exp2(largest - higher)
            total = total * shrink + tl.sum(weights, 1)
            result = tl.dot(weights.to(value.dtype), value, result * shrink[:, None], input_precision=PRECISION)
            largest = higher

    write(out + locate(pair, heads, time, 1, HEAD_DIM), result / total[:, None], first, width, time, QUERIES, HEAD_DIM, PADDED)
    tl.store(logsumexp + pair.to(tl.int64) * time + rows, largest + tl.log2(total), mask=rows < time)


@triton.jit(do_not_specialize=["heads", "time"])
def grad_query_kernel(
    qkv, out, logsumexp, grad_out, grad_qkv, delta, heads, time,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The part of `grad_qkv` that belongs to QUERIES queries, and their `delta`. KEYS divides QUERIES."""
    blocks = tl.cdiv(time, QUERIES)
    pair = tl.program_id(0) // blocks
    first = (blocks - 1 - tl.program_id(0) % blocks) * QUERIES
    row, width = 3 * heads * HEAD_DIM, heads * HEAD_DIM
    here, there = locate(pair, heads, time, 3, HEAD_DIM), locate(pair, heads, time, 1, HEAD_DIM)
    keys, values = qkv + here + width, qkv + here + 2 * width
    rows, columns = first + tl.arange(0, QUERIES), tl.arange(0, KEYS)
    scale = LOG2_E / HEAD_DIM**0.5

    query = read(qkv + here, first, row, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
    grad = read(grad_out + there, first, width, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
    output = read(out + there, first, width, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
    statistics = pair.to(tl.int64) * time + rows
    mean = tl.sum(grad.to(tl.float32) * output.to(tl.float32), 1)
    tl.store(delta + statistics, mean, mask=rows < time)
    norm = tl.load(logsumexp + statistics, mask=rows < time, other=0.0)
    result = tl.zeros((QUERIES, PADDED), tl.float32)
    for diagonal in tl.static_range(2):
        begin = first if diagonal else 0
        end = tl.minimum(first + QUERIES, time) if diagonal else first
        for start in tl.range(begin, end, KEYS):
            key = read(keys, start, row, time, KEYS, HEAD_DIM, PADDED, diagonal and not EVEN)
            value = read(values, start, row, time, KEYS, HEAD_DIM, PADDED, diagonal and not EVEN)
            scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
            grad_weights = tl.dot(grad, tl.trans(value), input_precision=PRECISION)
            if diagonal:
                scores = tl.where(rows[:, None] >= start + columns[None, :], scores, float("-inf"))
            weights = tl.exp2(scores * scale - norm[:, None])
            grad_scores = weights * (grad_weights - mean[:, None])
            result = tl.dot(grad_scores.to(key.dtype), key, result, input_precision=PRECISION)

    write(grad_qkv + here, result / HEAD_DIM**0.5, first, row, time, QUERIES, HEAD_DIM, PADDED)


@triton.jit(do_not_specialize=["heads", "time"])
def grad_key_value_kernel(
    qkv, logsumexp, grad_out, grad_qkv, delta, heads, time,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The parts of `grad_qkv` that belong to KEYS keys and their values. QUERIES divides KEYS.

    All blocks of scores are transposed here, (KEYS, QUERIES), so that they enter the sums from the left, from registers.
    """
    blocks = tl.cdiv(time, KEYS)
    pair = tl.program_id(0) // blocks
    first = tl.program_id(0) % blocks * KEYS
    row, width = 3 * heads * HEAD_DIM, heads * HEAD_DIM
    here, there = locate(pair, heads, time, 3, HEAD_DIM), locate(pair, heads, time, 1, HEAD_DIM)
    rows, columns = first + tl.arange(0, KEYS), tl.arange(0, QUERIES)
    scale = LOG2_E / HEAD_DIM**0.5

    key = read(qkv + here + width, first, row, time, KEYS, HEAD_DIM, PADDED, not EVEN)
    value = read(qkv + here + 2 * width, first, row, time, KEYS, HEAD_DIM, PADDED, not EVEN)
    grad_key = tl.zeros((KEYS, PADDED), tl.float32)
    grad_value = tl.zeros((KEYS, PADDED), tl.float32)
    for past in tl.static_range(2):
        begin = first + KEYS if past else first
        end = time if past else tl.minimum(first + KEYS, time)
        for start in tl.range(begin, end, QUERIES):
            query = read(qkv + here, start, row, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
            grad = read(grad_out + there, start, width, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
            statistics, exists = pair.to(tl.int64) * time + start + columns, start + columns < time
            norm = tl.load(logsumexp + statistics, mask=exists, other=0.0)
            mean = tl.load(delta + statistics, mask=exists, other=0.0)
            scores = tl.dot(key, tl.trans(query), input_precision=PRECISION)
            grad_weights = tl.dot(value, tl.trans(grad), input_precision=PRECISION)
            if not past:
                scores = tl.where(start + columns[None, :] >= rows[:, None], scores, float("-inf"))
            weights = tl.exp2(scores * scale - norm[None, :])
            grad_value = tl.dot(weights.to(grad.dtype), grad, grad_value, input_precision=PRECISION)
            grad_scores = weights * (grad_weights - mean[None, :])
            grad_key = tl.dot(grad_scores.to(query.dtype), query, grad_key, input_precision=PRECISION)

    write(grad_qkv + here + width, grad_key / HEAD_DIM**0.5, first, row, time, KEYS, HEAD_DIM, PADDED)
    write(grad_qkv + here + 2 * width, grad_value, first, row, time, KEYS, HEAD_DIM, PADDED)
