"""The passes over a map, in Triton. Importing this needs triton; `norm_act` imports it when it launches one.

A map is a matrix (rows, channels) in memory: channels_last, a row per pixel. Its rows fall into segments of `length`
rows (an image each, or one segment of all), a segment into `parts` of at most `span` rows. A program walks down one
part of one block of WIDTH channels in tiles of (ROWS, WIDTH), in one order: no atomics, so equal inputs give equal
bits. Everything is added up in float32, per lane of the tile, and lanes meet once at the end.

Offsets that grow with the map are 64-bit; those inside a tile are 32-bit. Channels come as `groups` of VECTOR, so that
the compiler knows that a row starts at a multiple of VECTOR and loads that many at once. Sizes are not specialised on:
one compilation serves all maps of a dtype, an activation and a tile.
"""

# pyright: reportArgumentType=false, reportPossiblyUnboundVariable=false
# This is Triton's language: indexing with None adds an axis, and a branch on a constexpr is gone when it is compiled.

import triton
import triton.language as tl

SIZES = ("length", "groups", "span", "parts", "channels")


@triton.jit
def _activated(u, ACTIVATION: tl.constexpr):
    # comparisons are written so that NaN passes: a diverged training must show
    if ACTIVATION == "silu":
        y = u * tl.sigmoid(u)
    elif ACTIVATION == "relu":
        y = tl.where(u < 0.0, 0.0, u)
    elif ACTIVATION == "relu6":
        y = tl.where(u < 0.0, 0.0, tl.where(u > 6.0, 6.0, u))
    elif ACTIVATION == "hardswish":
        y = tl.where(u < -3.0, 0.0, tl.where(u > 3.0, u, u * (u + 3.0) * (1.0 / 6.0)))
    else:
        y = u
    return y


@triton.jit
def _slope(u, ACTIVATION: tl.constexpr):
    """Derivative of `_activated`; at the kinks that of torch."""
    if ACTIVATION == "silu":
        sigmoid = tl.sigmoid(u)
        slope = sigmoid * (1.0 + u * (1.0 - sigmoid))
    elif ACTIVATION == "relu":
        slope = tl.where(u > 0.0, 1.0, 0.0)
    elif ACTIVATION == "relu6":
        slope = tl.where((u > 0.0) & (u < 6.0), 1.0, 0.0)
    elif ACTIVATION == "hardswish":
        slope = tl.where(u <= -3.0, 0.0, tl.where(u < 3.0, u * (1.0 / 3.0) + 0.5, 1.0))
    else:
        slope = tl.full(u.shape, 1.0, tl.float32)
    return slope


@triton.jit
def _place(length, groups, span, parts, VECTOR: tl.constexpr, WIDTH: tl.constexpr):
    """Where this program works: channels of a row, its columns, its running part, its segment, first and last row."""
    channels = groups * VECTOR
    blocks = tl.cdiv(channels, WIDTH)
    program = tl.program_id(0)
    column = program % blocks * WIDTH + tl.arange(0, WIDTH)
    part = (program // blocks).to(tl.int64)
    segment = part // parts
    begin = segment * length + part % parts * span
    end = tl.minimum(begin + span, (segment + 1) * length)
    return channels, column, part, segment, begin, end


@triton.jit(do_not_specialize=SIZES)
def statistics(
    x, means, squares, length, groups, span, parts, VECTOR: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    """Mean less `x[0]`, and squared deviations, of each part -> means, squares (parts, channels).

    By Welford's formula per lane and Chan's for the lanes together. Measured from the first row, because a mean that is
    large beside the deviation would round both.
    """
    channels, column, part, _segment, begin, end = _place(length, groups, span, parts, VECTOR, WIDTH)
    present = column < channels
    lane = tl.arange(0, ROWS)
    tile = lane[:, None] * channels + column[None, :]
    origin = tl.load(x + column, mask=present, other=0.0).to(tl.float32)
    mean = tl.zeros((ROWS, WIDTH), tl.float32)
    square = tl.zeros((ROWS, WIDTH), tl.float32)
    seen = 0.0
    for start in range(begin, end, ROWS):
        inside = (lane < end - start)[:, None] & present[None, :]
        value = tl.load(x + start * channels + tile, mask=inside, other=0.0).to(tl.float32) - origin[None, :]
        seen += 1.0
        deviation = tl.where(inside, value - mean, 0.0)
        mean += deviation * (1.0 / seen)
        square += deviation * (value - mean)
    rows = (end - begin).to(tl.int32)
    share = ((rows - lane + ROWS - 1) // ROWS).to(tl.float32) / rows.to(tl.float32)  # of the rows, that a lane saw
    middle = tl.sum(mean * share[:, None], axis=0)
    apart = (mean - middle[None, :]) * (mean - middle[None, :]) * share[:, None] * rows.to(tl.float32)
    tl.store(means + part * channels + column, middle, mask=present)
    tl.store(squares + part * channels + column, tl.sum(square + apart, axis=0), mask=present)


@triton.jit(do_not_specialize=SIZES)
def finalise(
    x,
    means,
    squares,
    mean_out,
    inverse_out,
    running_mean,
    running_var,
    batches,
    length,
    channels,
    span,
    parts,
    one_row,
    bessel,
    momentum,
    eps,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Join the parts by Chan's formula: mean and 1/deviation (channels,), and the running statistics, in place.

    `one_row` is 1/rows and `bessel` rows/(rows - 1): the running variance is the unbiased one.
    """
    column = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    part = tl.arange(0, PARTS)
    present = column < channels
    inside = (part < parts)[:, None] & present[None, :]
    place = part[:, None] * channels + column[None, :]
    rows = tl.minimum(length - part.to(tl.int64) * span, span)
    share = tl.where(part < parts, rows, 0).to(tl.float32)[:, None] * one_row
    partial = tl.load(means + place, mask=inside, other=0.0)
    shifted = tl.sum(partial * share, axis=0)
    apart = (partial - shifted[None, :]) * (partial - shifted[None, :]) * share
    within = tl.load(squares + place, mask=inside, other=0.0) * one_row
    variance = tl.sum(within + apart, axis=0)
    mean = shifted + tl.load(x + column, mask=present, other=0.0).to(tl.float32)
    tl.store(mean_out + column, mean, mask=present)
    tl.store(inverse_out + column, 1.0 / tl.sqrt(variance + eps), mask=present)
    old_mean = tl.load(running_mean + column, mask=present, other=0.0)
    old_variance = tl.load(running_var + column, mask=present, other=0.0)
    tl.store(running_mean + column, (1.0 - momentum) * old_mean + momentum * mean, mask=present)
    tl.store(running_var + column, (1.0 - momentum) * old_variance + momentum * (variance * bessel), mask=present)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit
def _normed(mean, inverse, weight, bias, column, present):
    """Per channel: the mean, 1/deviation, weight over deviation, and the bias, as float32."""
    middle = tl.load(mean + column, mask=present, other=0.0)
    steep = tl.load(inverse + column, mask=present, other=0.0)
    scale = tl.load(weight + column, mask=present, other=0.0) * steep
    return middle, steep, scale, tl.load(bias + column, mask=present, other=0.0)


@triton.jit(do_not_specialize=SIZES)
def apply(
    x,
    out,
    mean,
    inverse,
    weight,
    bias,
    gate,
    length,
    groups,
    span,
    parts,
    GATED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """`out` = activation(batch norm of x), times gate (segments, channels) where GATED."""
    channels, column, _part, segment, begin, end = _place(length, groups, span, parts, VECTOR, WIDTH)
    present = column < channels
    lane = tl.arange(0, ROWS)
    tile = lane[:, None] * channels + column[None, :]
    middle, _steep, scale, shift = _normed(mean, inverse, weight, bias, column, present)
    if GATED:
        opening = tl.load(gate + segment * channels + column, mask=present, other=0.0)
    for start in range(begin, end, ROWS):
        inside = (lane < end - start)[:, None] & present[None, :]
        value = tl.load(x + start * channels + tile, mask=inside, other=0.0).to(tl.float32)
        y = _activated((value - middle[None, :]) * scale[None, :] + shift[None, :], ACTIVATION)
        if GATED:
            y = y * opening[None, :]
        tl.store(out + start * channels + tile, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def sums(
    x,
    dy,
    out,
    mean,
    inverse,
    weight,
    bias,
    length,
    groups,
    span,
    parts,
    WEIGHTED: tl.constexpr,
    VALUES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Sums over the rows of each part -> out (2, parts, channels), or (3, parts, channels) where VALUES.

    Of the slope, of slope times normalised x, and of y; each summand is multiplied by `dy` where WEIGHTED.
    """
    channels, column, part, _segment, begin, end = _place(length, groups, span, parts, VECTOR, WIDTH)
    present = column < channels
    lane = tl.arange(0, ROWS)
    tile = lane[:, None] * channels + column[None, :]
    middle, steep, scale, shift = _normed(mean, inverse, weight, bias, column, present)
    slopes = tl.zeros((ROWS, WIDTH), tl.float32)
    moments = tl.zeros((ROWS, WIDTH), tl.float32)
    values = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(begin, end, ROWS):
        inside = (lane < end - start)[:, None] & present[None, :]
        value = tl.load(x + start * channels + tile, mask=inside, other=0.0).to(tl.float32)
        if WEIGHTED:
            factor = tl.load(dy + start * channels + tile, mask=inside, other=0.0).to(tl.float32)
        else:
            factor = tl.where(inside, 1.0, 0.0)
        deviation = value - middle[None, :]
        u = deviation * scale[None, :] + shift[None, :]
        slope = factor * _slope(u, ACTIVATION)
        slopes += slope
        moments += slope * deviation
        if VALUES:
            values += factor * _activated(u, ACTIVATION)
    blocks = tl.cdiv(channels, WIDTH)
    plane = (tl.num_programs(0) // blocks).to(tl.int64) * channels
    place = out + part * channels + column
    tl.store(place, tl.sum(slopes, axis=0), mask=present)
    tl.store(place + plane, tl.sum(moments, axis=0) * steep, mask=present)
    if VALUES:
        tl.store(place + 2 * plane, tl.sum(values, axis=0), mask=present)


@triton.jit(do_not_specialize=SIZES)
def gradient(
    x,
    dy,
    dx,
    mean,
    inverse,
    weight,
    bias,
    slopes,
    gate,
    share,
    one_row,
    length,
    groups,
    span,
    parts,
    GATED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """`dx` from `slopes` (2, channels), the gradients of bias and weight; `one_row` is 1/rows of the whole map.

    Where GATED, dy is the gradient behind the gate: gate and share (segments, channels) make it that before the gate.
    """
    channels, column, _part, segment, begin, end = _place(length, groups, span, parts, VECTOR, WIDTH)
    present = column < channels
    lane = tl.arange(0, ROWS)
    tile = lane[:, None] * channels + column[None, :]
    middle, steep, scale, shift = _normed(mean, inverse, weight, bias, column, present)
    level = tl.load(slopes + column, mask=present, other=0.0) * one_row
    tilt = tl.load(slopes + channels + column, mask=present, other=0.0) * one_row * steep
    if GATED:
        opening = tl.load(gate + segment * channels + column, mask=present, other=0.0)
        pooled = tl.load(share + segment * channels + column, mask=present, other=0.0)
    for start in range(begin, end, ROWS):
        inside = (lane < end - start)[:, None] & present[None, :]
        value = tl.load(x + start * channels + tile, mask=inside, other=0.0).to(tl.float32)
        back = tl.load(dy + start * channels + tile, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            back = back * opening[None, :] + pooled[None, :]
        deviation = value - middle[None, :]
        slope = back * _slope(deviation * scale[None, :] + shift[None, :], ACTIVATION)
        result = scale[None, :] * (slope - level[None, :] - deviation * tilt[None, :])
        tl.store(dx + start * channels + tile, result.to(dx.dtype.element_ty), mask=inside)
