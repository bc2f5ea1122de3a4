"""The machine: carries out a list of instructions on a block, tile by tile, so that everything between the
stored bytes read and the stored bytes written stays in the cache. Compiled by numba, once per machine; no
instruction fuses a multiplication with an addition, so every bit is that of one operation at a time."""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from harness.merge.fused import codes as c

TILE = 1024  # elements of a register: a dozen of them stay in the cache; divides CHUNK
CHUNK = 65_536
BAD = np.int32(0x7F800000)  # the exponent of what is not finite
LOW_BAD = np.int32(0x7F80)
REST = np.int32(0x7FFFFFFF)
MINUS = np.int32(-0x80000000)
ONE = np.int32(1)
HALF = np.uint32(16)


@intrinsic
def _wide(typing, a, b):
    """(high, low) 64 bits of the product of two uint64."""

    def make(context, builder, signature, args):
        import llvmlite.ir as ir

        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
        return context.make_tuple(
            builder, signature.return_type, [high, builder.trunc(product, ir.IntType(64))]
        )

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), make


@njit(nogil=True, cache=True, error_model="numpy")
def _philox(counter, key0, key1):
    """Philox 4x64 with ten rounds (Salmon et al., SC 2011), of a counter below 2^64."""
    x0, x1, x2, x3 = counter, np.uint64(0), np.uint64(0), np.uint64(0)
    for _ in range(10):
        high0, low0 = _wide(np.uint64(0xD2E7470EE14C6C93), x0)
        high1, low1 = _wide(np.uint64(0xCA5A826395121157), x2)
        x0, x1, x2, x3 = high1 ^ x1 ^ key0, low1, high0 ^ x3 ^ key1, low0
        key0 += np.uint64(0x9E3779B97F4A7C15)
        key1 += np.uint64(0xBB67AE8584CAA73B)
    return x0, x1, x2, x3


@njit(nogil=True, cache=True, error_model="numpy")
def _draw(out, m, first, key0, key1, limit):
    """out[i] = all bits where word `first + i` (a multiple of 8) of the stream is below `limit`."""
    low = np.uint64(0xFFFFFFFF)
    for i in range(0, (m + 7) // 8):
        words = _philox(np.uint64(first // 8 + i + 1), key0, key1)
        at = 8 * i
        for j in range(4):
            out[at + 2 * j] = -np.int32((words[j] & low) < limit)
            out[at + 2 * j + 1] = -np.int32((words[j] >> np.uint64(32)) < limit)


@njit(nogil=True, cache=True, error_model="numpy")
def _rank(x, m, low, high, counters, k, inside, used):
    """Count how m values lie to [low, high], and put those strictly inside behind the `used` first."""
    for start in range(0, m // 32 * 32, 32):
        between = np.int32(0)
        for i in range(32):
            between |= np.int32(x[start + i] > low) & np.int32(x[start + i] < high)
        if between:
            for i in range(start, start + 32):
                inside[used] = x[i]
                used += (x[i] > low) & (x[i] < high)
    for i in range(m // 32 * 32, m):
        inside[used] = x[i]
        used += (x[i] > low) & (x[i] < high)
    a = b = d = e = np.int32(0)
    for i in range(m):
        a += np.int32(x[i] > low)
        b += np.int32(x[i] == low)
        d += np.int32(x[i] == high)
        e += np.int32(x[i] != x[i])
    over, at_low, at_high, nan = a, b, d, e
    counters[k] += over
    counters[k + 1] += at_low
    counters[k + 2] += at_high
    counters[k + 3] += nan
    return used


@njit(nogil=True, cache=True, error_model="numpy")
def execute(program, n, offset, u16, f32, floats, bits, numbers, draws, counters, energies, totals, inside):
    """Carry out `program` on `n` elements that begin at `offset` of their tensor.

    u16, f32: the same rows of stored bytes; floats, bits: the same registers; numbers: the constants of the
    program, their bits in it are not read; counters are added to. Returns how many values are `inside`.
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
                    bad += np.int32((bits[z, i] & BAD) == BAD)
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
                    floats[z, i] = np.float32(np.int32(v > 0) - np.int32(v < 0))
            elif code == c.ROUND16 or code == c.BITS16:
                for i in range(m):
                    v = np.uint32(bits[x, i])
                    v += np.uint32(0x7FFF) + ((v >> np.uint32(16)) & np.uint32(1))
                    bits[z, i] = np.int32(v >> np.uint32(16))
                if code == c.ROUND16:
                    for i in range(m):
                        bits[z, i] <<= 16
            elif code == c.GT:
                for i in range(m):
                    bits[z, i] = -np.int32(floats[x, i] > floats[y, i])
            elif code == c.GE:
                for i in range(m):
                    bits[z, i] = -np.int32(floats[x, i] >= floats[y, i])
            elif code == c.EQ:
                for i in range(m):
                    bits[z, i] = -np.int32(floats[x, i] == floats[y, i])
            elif code == c.GT_C:
                for i in range(m):
                    bits[z, i] = -np.int32(floats[x, i] > k)
            elif code == c.GE_C:
                for i in range(m):
                    bits[z, i] = -np.int32(floats[x, i] >= k)
            elif code == c.LT_C:
                for i in range(m):
                    bits[z, i] = -np.int32(floats[x, i] < k)
            elif code == c.LE_C:
                for i in range(m):
                    bits[z, i] = -np.int32(floats[x, i] <= k)
            elif code == c.EQ_C:
                for i in range(m):
                    bits[z, i] = -np.int32(floats[x, i] == k)
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
                    hit = bits[x, i] & np.int32(1)
                    bits[z, i] = -np.int32(hit & np.int32(left > 0))
                    left -= hit
                counters[w] = np.int64(k) - left
            elif code == c.DRAWN:
                _draw(bits[z], m, offset + start, draws[x, 0], draws[x, 1], draws[x, 2])
            elif code == c.SAME:
                for i in range(m):
                    bits[z, i] = -np.int32(bits[x, i] == bits[y, i])
            elif code == c.ALL:
                for i in range(m):
                    bits[z, i] = -1
            elif code == c.STORE16:
                bad, halves = 0, u16[y, start : start + m]
                for i in range(m):
                    halves[i] = bits[x, i]
                for i in range(m):
                    bad += np.int32((bits[x, i] & LOW_BAD) == LOW_BAD)
                counters[w] += bad
            elif code == c.STORE32:
                bad, whole = 0, f32[y, start : start + m]
                for i in range(m):
                    whole[i] = floats[x, i]
                for i in range(m):
                    bad += np.int32((bits[x, i] & BAD) == BAD)
                counters[w] += bad
            elif code == c.COUNT:
                found = np.int32(0)
                for i in range(m):
                    found -= bits[x, i]
                counters[z] += found
            elif code == c.COUNT_BOTH:
                found = np.int32(0)
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
                found = np.int32(0)
                for i in range(m):
                    found += np.int32(floats[x, i])
                totals[z, start // CHUNK] += found
            elif code == c.RANK:
                used = _rank(floats[x], m, numbers[p], numbers[y], counters, z, inside, used)
    return used
