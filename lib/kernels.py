"""The views of `lib.augment` on a CPU: one image after the other, compiled by Numba, so that an image stays in the core's own cache.

As tensor operations, a view of a 32-pixel image moves its 12 kilobytes through memory some sixty times and waits for four hundred calls;
here all operations follow one another on one image. The formulas are those of `lib.augment`, which draws the parameters and does the
same on a GPU; tests hold the two to within rounding. The first call compiles, which takes seconds, and keeps the result in __pycache__
(or where NUMBA_CACHE_DIR says). Numba checks no index: what goes in is checked before.
"""
import math
import os
from functools import partial

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads

config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
# Sums may use vector registers.
compiled = partial(njit, nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
PER_THREAD = 2 ** 16    # pixels of views for which another thread is worth waking
PROCESS = os.getpid()   # a fork of it has none of its threads
RED, GREEN, BLUE, STD_EPSILON = map(np.float32, (0.2989, 0.587, 0.114, 1e-5))    # GRAY and STD_EPSILON of lib.augment, compiled in
ZERO, ONE, NO_WEIGHT = map(np.float32, (0, 1, 1e-20))


def views(images, drawn, size, radius, means_stds):
    """`lib.augment.batched` by kernels: uint8 (N, 3, H, W) -> float32 (N, 3, size, size), in channels_last as convolutions want it.

    drawn: the dict of `lib.augment.draw`;  radius: of the blur, in pixels;  means_stds: (6,) float32, mean and deviation of each
    channel, or (0,) for each image's own. Images are dealt out to as many threads as PyTorch has, in a forked process to one.
    """
    if len(drawn["box"]) != len(images):
        raise ValueError(f"drawn has the parameters of {len(drawn['box'])} images, images has {len(images)}: give one set per image.")
    out = torch.empty(len(images), size, size, 3)
    nothing = torch.zeros(0)
    arrays = [t.numpy() for t in (images, drawn["box"], drawn["flip"], drawn["jittered"], drawn["factors"], drawn["order"], drawn["gray"],
                                  drawn["blurred"], drawn["sigma"], drawn.get("grid", nothing.long()),
                                  drawn.get("hidden", nothing.bool().view(0, 16, 16)))]
    torchs = torch.get_num_threads()
    threads = min(torchs, len(images) * size * size // PER_THREAD + 1, len(images)) if os.getpid() == PROCESS else 1
    arrays += [radius, means_stds.numpy(), out.numpy()]
    if threads > 1:
        set_num_threads(min(threads, config.NUMBA_NUM_THREADS))
        torch.set_num_threads(torchs)                                      # at first use Numba's OpenMP gives PyTorch as many as it has
        _dealt(*arrays, threads)
    else:
        _views(*arrays, 0, len(images))
    return out.permute(0, 3, 1, 2)


@compiled(parallel=True)
def _dealt(images, box, flip, jittered, factors, order, gray, blurred, sigma, grid, hidden, radius, means_stds, out, parts):
    """`_views` in so many parts side by side, on Numba's threads, OpenMP's where there are any: Python's own are woken late
    beside PyTorch's, which stay busy for a while after each operation."""
    for part in prange(parts):
        _views(images, box, flip, jittered, factors, order, gray, blurred, sigma, grid, hidden, radius, means_stds, out,
               len(images) * part // parts, len(images) * (part + 1) // parts)


@compiled()
def _views(images, box, flip, jittered, factors, order, gray, blurred, sigma, grid, hidden, radius, means_stds, out, start, stop):
    size, longest = out.shape[1], max(images.shape[2], images.shape[3])
    taps = 2 * math.ceil(max(1, longest / size)) + 2
    first, count, weight = np.empty((2, size), np.int64), np.empty((2, size), np.int64), np.empty((2, size, taps), np.float32)
    narrow = np.empty((longest, size), np.float32)
    row = np.empty(max(longest, size), np.float32)
    view, other = np.empty((3, size, size), np.float32), np.empty((size, size), np.float32)     # [channel, column, row]; [row, column]
    flat, kernel = view.reshape(3, size * size), np.empty(2 * radius + 1, np.float32)
    for n in range(start, stop):
        top, left, height, width = box[n]
        _taps(height, size, False, first[0], count[0], weight[0])
        _taps(width, size, flip[n], first[1], count[1], weight[1])
        for channel in range(3):
            for i in range(size):
                row[:width] = 0
                for t in range(count[0, i]):
                    w, source = weight[0, i, t], images[n, channel, top + first[0, i] + t, left:left + width]
                    for x in range(width):
                        row[x] += w * source[x]
                for x in range(width):
                    narrow[x, i] = row[x]
            for j in range(size):
                column = view[channel, j]
                column[:] = 0
                for t in range(count[1, j]):
                    w, source = weight[1, j, t], narrow[first[1, j] + t]
                    for i in range(size):
                        column[i] += w * source[i]
        flat *= ONE / np.float32(255)
        if jittered[n]:
            for kind in order[n]:
                _jitter(flat[0], flat[1], flat[2], kind, factors[n, kind])
        if gray[n]:
            _blend(flat[0], flat[1], flat[2], ZERO, ZERO, ONE)
        if blurred[n]:
            _blur(view, other, kernel, row, sigma[n])
        if len(grid):
            _hide(view, flat, grid[n], hidden[n])
        _standardize(flat, means_stds)
        for i in range(size):
            for j in range(size):
                for channel in range(3):
                    out[n, i, j, channel] = view[channel, j, i]


@compiled()
def _mean(values):
    """Summed in double precision as distances from the first, so that it is exact where all are the same."""
    total = 0.0
    for p in range(len(values)):
        total += np.float64(values[p] - values[0])
    return np.float32(values[0] + total / len(values))


@compiled()
def _taps(length, size, flip, first, count, weight):
    """Antialiased bilinear resize of `length` pixels to `size`: the first pixel that each output pixel reads, how many, their weights."""
    scale = np.float32(length) / np.float32(size)
    wide = max(scale, ONE)
    for i in range(size):
        centre = scale * (np.float32(size - 1 - i if flip else i) + np.float32(0.5)) - np.float32(0.5)
        low, high = max(0, math.ceil(centre - wide)), min(length - 1, math.floor(centre + wide))
        total = ZERO
        for t in range(high - low + 1):
            weight[i, t] = max(ZERO, ONE - abs(np.float32(low + t) - centre) / wide)
            total += weight[i, t]
        for t in range(high - low + 1):
            weight[i, t] /= total
        first[i], count[i] = low, high - low + 1


@compiled()
def _blend(red, green, blue, own, mean, luma):
    """own * pixel + mean * (the image's mean grey) + luma * (the pixel's grey), clamped to [0, 1], in place."""
    level = mean * (RED * _mean(red) + GREEN * _mean(green) + BLUE * _mean(blue)) if mean else ZERO
    for p in range(len(red)):
        grey = luma * (RED * red[p] + GREEN * green[p] + BLUE * blue[p]) + level
        red[p] = min(ONE, max(ZERO, own * red[p] + grey))
        green[p] = min(ONE, max(ZERO, own * green[p] + grey))
        blue[p] = min(ONE, max(ZERO, own * blue[p] + grey))


@compiled()
def _jitter(red, green, blue, kind, factor):
    """One operation of ColorJitter in place; kind: 0 brightness, 1 contrast, 2 saturation, 3 hue."""
    if kind == 0:
        _blend(red, green, blue, factor, ZERO, ZERO)
    elif kind == 1:
        _blend(red, green, blue, factor, ONE - factor, ZERO)
    elif kind == 2:
        _blend(red, green, blue, factor, ZERO, ONE - factor)
    elif factor != 0:
        _hue(red, green, blue, factor)


@compiled()
def _hue(red, green, blue, shift):
    """`lib.augment.adjust_hue`, line by line."""
    third, half, six = np.float32(1 / 3), np.float32(0.5), np.float32(6)
    for p in range(len(red)):
        r, g, b = red[p], green[p], blue[p]
        highest, lowest = max(max(r, g), b), min(min(r, g), b)
        chroma = highest - lowest
        turn = (g + b - r - lowest) / max(chroma, np.float32(1e-12)) + ONE
        turn = (turn if g >= b else -turn) / six + (shift + ONE)
        turn -= np.floor(turn)
        red[p] = lowest + chroma * min(ONE, max(ZERO, six * abs(turn - half) - ONE))
        green[p] = lowest + chroma * min(ONE, max(ZERO, np.float32(2) - six * abs(turn - third)))
        blue[p] = lowest + chroma * min(ONE, max(ZERO, np.float32(2) - six * abs(turn - np.float32(2 / 3))))


@compiled()
def _blur(view, other, kernel, row, sigma):
    """Gaussian of `sigma` pixels, cut where `kernel` ends, borders reflected, in place; `other`, `kernel` and `row` are room to work in."""
    radius, total = len(kernel) // 2, ZERO
    for t in range(len(kernel)):
        kernel[t] = math.exp(np.float32(-0.5) * (np.float32(t - radius) / sigma) ** 2)
        total += kernel[t]
    kernel /= total
    for channel in range(3):
        _across(view[channel], other, kernel, row)
        _across(other, view[channel], kernel, row)


@compiled()
def _across(source, target, kernel, row):
    """The weighted sum of the rows of `source` around each row, borders reflected, as a column of `target`; `row` is room to work in.
    Rows are indexed: a slice of each cost more than the sum."""
    size, radius = len(source), len(kernel) // 2
    for j in range(size):
        row[:size] = 0
        for t in range(len(kernel)):
            w, k = kernel[t], _reflected(j + t - radius, size)
            if w < NO_WEIGHT:
                continue
            for i in range(size):
                row[i] += w * source[k, i]
        for i in range(size):
            target[i, j] = row[i]


@compiled()
def _reflected(i, size):
    return size - 1 - abs(size - 1 - abs(i))


@compiled()
def _hide(view, flat, grid, hidden):
    size = view.shape[1]
    for channel in range(3):
        mean = _mean(flat[channel])
        for j in range(size):
            for i in range(size):
                if hidden[i * grid // size, j * grid // size]:
                    view[channel, j, i] = mean


@compiled()
def _standardize(flat, means_stds):
    if len(means_stds):
        for channel in range(3):
            flat[channel] = (flat[channel] - means_stds[channel]) / means_stds[3 + channel]
        return
    values, square = flat.reshape(flat.size), 0.0
    mean = _mean(values)
    for p in range(len(values)):
        values[p] -= mean
        square += np.float64(values[p] * values[p])
    inverse = ONE / (np.float32(math.sqrt(square / len(values))) + STD_EPSILON)
    for p in range(len(values)):
        values[p] *= inverse
