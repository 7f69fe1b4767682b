"""The part of the C header that is the same for every class."""

from __future__ import annotations

from typing import Final

COMMON: Final = """\
#ifndef XPB_RING_COMMON
#define XPB_RING_COMMON

#if !defined(XPB_OWN_TYPES)
#include <stddef.h>
#include <stdint.h>
#endif

/* Whose message broke a rule. */
enum xpb_party { XPB_NOBODY = 0, XPB_FRONTEND = 1, XPB_BACKEND = 2 };

/*
 * Copies out of memory that the other end may be writing to: every byte is read once. Words are
 * read wherever the compiler can be told that they may lie anywhere and overlay anything.
 */
#if defined(__GNUC__)
typedef uint64_t __attribute__((may_alias, aligned(1))) xpb_word;
#endif

static inline void xpb_copy(unsigned char *to, const volatile void *from, size_t size)
{
    const volatile unsigned char *bytes = (const volatile unsigned char *)from;
    size_t i = 0;
#if defined(__GNUC__)
    for (; i + 8 <= size; i += 8) {
        const volatile void *word = bytes + i;

        *(xpb_word *)(void *)(to + i) = *(const volatile xpb_word *)word;
    }
#endif
    for (; i < size; i++)
        to[i] = bytes[i];
}

/* Numbers in messages: little-endian, anywhere; negative ones as in two's complement. */
static inline uint64_t xpb_u8(const unsigned char *at)
{
    return at[0];
}

static inline uint64_t xpb_u16(const unsigned char *at)
{
    return (uint64_t)at[0] | (uint64_t)at[1] << 8;
}

static inline uint64_t xpb_u32(const unsigned char *at)
{
    return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24;
}

static inline uint64_t xpb_u64(const unsigned char *at)
{
    return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 |
           (uint64_t)at[3] << 24 | (uint64_t)at[4] << 32 | (uint64_t)at[5] << 40 |
           (uint64_t)at[6] << 48 | (uint64_t)at[7] << 56;
}

static inline uint64_t xpb_s8(const unsigned char *at)
{
    return (xpb_u8(at) ^ UINT64_C(0x80)) - UINT64_C(0x80);
}

static inline uint64_t xpb_s16(const unsigned char *at)
{
    return (xpb_u16(at) ^ UINT64_C(0x8000)) - UINT64_C(0x8000);
}

static inline uint64_t xpb_s32(const unsigned char *at)
{
    return (xpb_u32(at) ^ UINT64_C(0x80000000)) - UINT64_C(0x80000000);
}

/* In expressions a negative number counts as 0. */
static inline uint64_t xpb_positive(uint64_t value)
{
    return value >> 63 ? 0 : value;
}

/* One number for the order of negative and positive ones. */
static inline uint64_t xpb_order(uint64_t value)
{
    return value ^ UINT64_C(0x8000000000000000);
}

/* Sums and products stop at the upper end, differences at 0; so nothing overflows. */
static inline uint64_t xpb_add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static inline uint64_t xpb_sub(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static inline uint64_t xpb_mul(uint64_t a, uint64_t b)
{
    return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

static inline uint64_t xpb_div(uint64_t a, uint64_t b)
{
    return b != 0 ? a / b : 0;
}

static inline uint64_t xpb_mod(uint64_t a, uint64_t b)
{
    return b != 0 ? a % b : 0;
}

static inline uint64_t xpb_and(uint64_t a, uint64_t b)
{
    return a & b;
}

static inline uint64_t xpb_lt(uint64_t a, uint64_t b)
{
    return a < b;
}

static inline uint64_t xpb_le(uint64_t a, uint64_t b)
{
    return a <= b;
}

static inline uint64_t xpb_gt(uint64_t a, uint64_t b)
{
    return a > b;
}

static inline uint64_t xpb_ge(uint64_t a, uint64_t b)
{
    return a >= b;
}

static inline uint64_t xpb_eq(uint64_t a, uint64_t b)
{
    return a == b;
}

static inline uint64_t xpb_ne(uint64_t a, uint64_t b)
{
    return a != b;
}

/*
 * Whether a value may have been among those before it: never wrong when it says 0. Two marks
 * of 64 bits each, so that lists without repeats are seldom compared item by item.
 */
static inline uint64_t xpb_maybe(uint64_t *marks, uint64_t value)
{
    const uint64_t low = UINT64_C(1) << (value & 63), high = UINT64_C(1) << (value >> 6 & 63);
    const uint64_t maybe = (uint64_t)((marks[0] & low) != 0 && (marks[1] & high) != 0);

    marks[0] |= low;
    marks[1] |= high;
    return maybe;
}

/*
 * Ids in flight: a table of twice as many entries as there are slots, both powers of two, so
 * that at least half are free. An id stands at its hash's entry or in the first free one after.
 */
struct xpb_id {
    uint64_t id;
    uint64_t asked;
    uint32_t used;
};

static inline uint32_t xpb_hash(uint64_t id, uint32_t mask)
{
    return (uint32_t)((id * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & mask;
}

/* 1 if the id was put in, 0 if it is there already. */
static inline int xpb_put(struct xpb_id *ids, uint32_t mask, uint64_t id, uint64_t asked)
{
    uint32_t at = xpb_hash(id, mask), steps;

    for (steps = 0; steps < mask && ids[at].used; steps++) {
        if (ids[at].id == id)
            return 0;
        at = (at + 1) & mask;
    }
    if (ids[at].used)
        return 0;
    ids[at].id = id;
    ids[at].asked = asked;
    ids[at].used = 1;
    return 1;
}

/* 1 if the id was there; it is no longer, and `asked` is what came with it. */
static inline int xpb_take(struct xpb_id *ids, uint32_t mask, uint64_t id, uint64_t *asked)
{
    uint32_t at = xpb_hash(id, mask), hole, home, steps;

    for (steps = 0; steps < mask && ids[at].used && ids[at].id != id; steps++)
        at = (at + 1) & mask;
    if (!ids[at].used || ids[at].id != id)
        return 0;
    *asked = ids[at].asked;
    /* Those after it that would not be found past the hole move into it. */
    hole = at;
    for (steps = 0; steps < mask; steps++) {
        at = (at + 1) & mask;
        if (!ids[at].used)
            break;
        home = xpb_hash(ids[at].id, mask);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            ids[hole] = ids[at];
            hole = at;
        }
    }
    ids[hole].used = 0;
    return 1;
}

#endif /* XPB_RING_COMMON */
"""
