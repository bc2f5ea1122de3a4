"""The machine: carries out a list of instructions on a block, tile by tile, so that everything between the
stored bytes read and the stored bytes written stays in the cache. Compiled by numba, once per machine; no
instruction fuses a multiplication with an addition, so every bit is that of one operation at a time."""

from __future__ import annotations

import numpy as np
from numba import njit

from harness.merge.fused import codes as c

# Numba compiles again when this file changes, and only then: so the instructions' own file is named here.
MADE_FOR = "b0d8ad1fc65604b3"  # the beginning of the sha256 of codes.py
TILE = 1024  # elements of a register: a dozen of them stay in the cache; divides CHUNK
CHUNK = 65_536
I32 = np.int32
BAD = I32(0x7F800000)  # the exponent of what is not finite
REST = I32(0x7FFFFFFF)
MINUS = I32(-0x80000000)
HALF = np.uint32(16)
UNIT = I32(0x3F800000)  # 1.0
MULTIPLY0, MULTIPLY1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)  # Philox 4x64
WEYL0, WEYL1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
LOW, WORD, ZERO = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(0)


def compiled(function):
    """Compiled on its first call, which other processes need not do again where a cache can be kept."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder for the cache can be written: neither beside this file nor the user's
        return njit(nogil=True, error_model="numpy")(function)


@compiled
def _high(a, b):
    """The upper 64 bits of the product of two uint64, in operations that a vector has."""
    low_a, high_a, low_b, high_b = a & LOW, a >> WORD, b & LOW, b >> WORD
    low, one, two = low_a * low_b, low_a * high_b, high_a * low_b
    middle = (low >> WORD) + (one & LOW) + (two & LOW)
    return high_a * high_b + (one >> WORD) + (two >> WORD) + (middle >> WORD)


@compiled
def _draw(out, first, key0, key1, limit):
    """out[i] (uint32) = all bits where word `first + i` (a multiple of 8) of the stream is below `limit`.

    Philox 4x64 with ten rounds (Salmon et al., Parallel random numbers, SC 2011); eight words a counter.
    """
    words = out.view(np.uint64)
    for i in range(len(words) // 4):
        x0, x1, x2, x3 = np.uint64(first // 8) + np.uint64(i) + np.uint64(1), ZERO, ZERO, ZERO
        k0, k1 = key0, key1
        for _ in range(10):
            high0, high1 = _high(MULTIPLY0, x0), _high(MULTIPLY1, x2)
            x0, x1, x2, x3 = high1 ^ x1 ^ k0, MULTIPLY1 * x2, high0 ^ x3 ^ k1, MULTIPLY0 * x0
            k0 += WEYL0
            k1 += WEYL1
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = x0, x1, x2, x3
    for i in range(len(out)):
        out[i] = np.uint32(0xFFFFFFFF) if out[i] < limit else np.uint32(0)


@compiled
def _rank(x, m, low, high, counters, k, inside, used, scratch):
    """Count how m values lie to [low, high], and put those strictly inside behind the `used` first."""
    over = at_low = at_high = nan = I32(0)
    for i in range(m):
        over = I32(over + I32(x[i] > low))
        at_low = I32(at_low + I32(x[i] == low))
        at_high = I32(at_high + I32(x[i] == high))
        nan = I32(nan + I32(x[i] != x[i]))
        scratch[i] = I32(x[i] > low) & I32(x[i] < high)
    counters[k] += over
    counters[k + 1] += at_low
    counters[k + 2] += at_high
    counters[k + 3] += nan
    eight = m // 8
    pairs = scratch.view(np.int64)
    for j in range(eight):  # few are inside: most groups of eight have none
        if pairs[4 * j] | pairs[4 * j + 1] | pairs[4 * j + 2] | pairs[4 * j + 3]:
            for i in range(8 * j, 8 * j + 8):
                inside[used] = x[i]
                used += scratch[i]
    for i in range(8 * eight, m):
        inside[used] = x[i]
        used += scratch[i]
    return used


@compiled
def execute(
    program, n, offset, u16, f32, floats, bits, words, numbers, draws, counters, energies, totals, inside
):
    """Carry out `program` on `n` elements that begin at `offset` of their tensor.

    u16, f32: the same rows of stored bytes; floats, bits, words: the same registers; numbers: the constants
    of the program; counters, energies and totals are added to. Returns how many values are `inside`.
    """
    used = 0
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        for p in range(len(program)):
            code, z, x, y, w = program[p, 0], program[p, 1], program[p, 2], program[p, 3], program[p, 5]
            k = numbers[p]
            if code == c.LOAD16 or code == c.LOAD32:
                if code == c.LOAD16:
                    halves = u16[x, start : start + m]
                    for i in range(m):
                        bits[z, i] = np.uint32(halves[i]) << HALF
                else:
                    whole = f32[x, start : start + m]
                    for i in range(m):
                        floats[z, i] = whole[i]
                bad = 0
                for i in range(m):
                    bad += I32((bits[z, i] & BAD) == BAD)
                counters[w] += bad
            elif code == c.FILL:
                for i in range(m):
                    floats[z, i] = k
            elif code == c.ADD:
                for i in range(m):
                    floats[z, i] = floats[x, i] + floats[y, i]
            elif code == c.SUB:
                for i in range(m):
                    floats[z, i] = floats[x, i] - floats[y, i]
            elif code == c.MUL:
                for i in range(m):
                    floats[z, i] = floats[x, i] * floats[y, i]
            elif code == c.DIV:
                for i in range(m):
                    floats[z, i] = floats[x, i] / floats[y, i]
            elif code == c.ADD_TO:
                for i in range(m):
                    floats[z, i] = floats[x, i] + k
            elif code == c.SUB_TO:
                for i in range(m):
                    floats[z, i] = floats[x, i] - k
            elif code == c.MUL_BY:
                for i in range(m):
                    floats[z, i] = floats[x, i] * k
            elif code == c.DIV_BY:
                for i in range(m):
                    floats[z, i] = floats[x, i] / k
            elif code == c.CLAMP:
                for i in range(m):
                    v = floats[x, i]
                    floats[z, i] = k if v < k else v
            elif code == c.ABS:
                for i in range(m):
                    bits[z, i] = bits[x, i] & REST
            elif code == c.SIGN:
                for i in range(m):
                    v = floats[x, i]
                    every = -I32((v > 0) | (v < 0))
                    bits[z, i] = ((bits[x, i] & MINUS) | UNIT) & every
            elif code == c.ROUND16:
                for i in range(m):
                    v = np.uint32(bits[x, i])
                    v += np.uint32(0x7FFF) + ((v >> HALF) & np.uint32(1))
                    bits[z, i] = I32(v & np.uint32(0xFFFF0000))
            elif code == c.GT:
                for i in range(m):
                    bits[z, i] = -I32(floats[x, i] > floats[y, i])
            elif code == c.GE:
                for i in range(m):
                    bits[z, i] = -I32(floats[x, i] >= floats[y, i])
            elif code == c.EQ:
                for i in range(m):
                    bits[z, i] = -I32(floats[x, i] == floats[y, i])
            elif code == c.GT_C:
                for i in range(m):
                    bits[z, i] = -I32(floats[x, i] > k)
            elif code == c.GE_C:
                for i in range(m):
                    bits[z, i] = -I32(floats[x, i] >= k)
            elif code == c.LT_C:
                for i in range(m):
                    bits[z, i] = -I32(floats[x, i] < k)
            elif code == c.LE_C:
                for i in range(m):
                    bits[z, i] = -I32(floats[x, i] <= k)
            elif code == c.EQ_C:
                for i in range(m):
                    bits[z, i] = -I32(floats[x, i] == k)
            elif code == c.AND:
                for i in range(m):
                    bits[z, i] = bits[x, i] & bits[y, i]
            elif code == c.OR:
                for i in range(m):
                    bits[z, i] = bits[x, i] | bits[y, i]
            elif code == c.XOR:
                for i in range(m):
                    bits[z, i] = bits[x, i] ^ bits[y, i]
            elif code == c.NOT:
                for i in range(m):
                    bits[z, i] = ~bits[x, i]
            elif code == c.MASKED:
                for i in range(m):
                    bits[z, i] = bits[x, i] & (bits[y, i] | MINUS)
            elif code == c.CHOOSE:
                for i in range(m):
                    bits[z, i] = bits[y, i] ^ ((bits[x, i] ^ bits[y, i]) & bits[w, i])
            elif code == c.AS_NUMBER:
                for i in range(m):
                    floats[z, i] = np.float32(bits[x, i] & 1)
            elif code == c.FIRST:
                left = np.int64(k) - counters[w]
                for i in range(m):
                    hit = bits[x, i] & I32(1)
                    bits[z, i] = -I32(hit & I32(left > 0))
                    left -= hit
                counters[w] = np.int64(k) - left
            elif code == c.DRAWN:
                _draw(words[z, :TILE], offset + start, draws[x, 0], draws[x, 1], np.uint32(draws[x, 2]))
            elif code == c.SAME:
                for i in range(m):
                    bits[z, i] = -I32(bits[x, i] == bits[y, i])
            elif code == c.ALL:
                for i in range(m):
                    bits[z, i] = -1
            elif code == c.STORE16:
                bad, halves = 0, u16[y, start : start + m]
                for i in range(m):
                    halves[i] = np.uint32(bits[x, i]) >> HALF
                for i in range(m):
                    bad += I32((bits[x, i] & BAD) == BAD)
                counters[w] += bad
            elif code == c.STORE32:
                bad, whole = 0, f32[y, start : start + m]
                for i in range(m):
                    whole[i] = floats[x, i]
                for i in range(m):
                    bad += I32((bits[x, i] & BAD) == BAD)
                counters[w] += bad
            elif code == c.COUNT:
                found = I32(0)
                for i in range(m):
                    found -= bits[x, i]
                counters[z] += found
            elif code == c.COUNT_BOTH:
                found = I32(0)
                for i in range(m):
                    found -= bits[x, i] & bits[y, i]
                counters[z] += found
            elif code == c.ENERGY:
                for i in range(m):
                    floats[y, i] = floats[x, i] * floats[x, i]
                for i in range(m, TILE):
                    floats[y, i] = 0
                width = TILE // 2
                while width:
                    for i in range(width):
                        floats[y, i] += floats[y, i + width]
                    width //= 2
                energies[z, start // CHUNK] += np.float64(floats[y, 0])
            elif code == c.TOTAL:
                found = I32(0)
                for i in range(m):
                    found += I32(floats[x, i])
                totals[z, start // CHUNK] += found
            elif code == c.RANK:
                used = _rank(floats[x], m, k, numbers[y], counters, z, inside, used, bits[w])
    return used
