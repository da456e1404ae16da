/* What compilers call by themselves, in place of a C library's. */
#include <stddef.h>
#include <stdint.h>

#define AS_WRITTEN __attribute__((optimize("no-tree-loop-distribute-patterns"))) /* not as calls of themselves */

typedef uint32_t __attribute__((may_alias)) word_t;

AS_WRITTEN void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    uint8_t *next = to;
    const uint8_t *source = from;
    if ((((uintptr_t)next | (uintptr_t)source) & 3u) == 0) {
        for (; size >= 4; size -= 4, next += 4, source += 4) {
            *(word_t *)next = *(const word_t *)source;
        }
    }
    while (size-- > 0) {
        *next++ = *source++;
    }
    return to;
}

AS_WRITTEN void *memmove(void *to, const void *from, size_t size) {
    uint8_t *next = to;
    const uint8_t *source = from;
    if (next <= source) {
        while (size-- > 0) {
            *next++ = *source++;
        }
    } else {
        while (size-- > 0) {
            next[size] = source[size];
        }
    }
    return to;
}

AS_WRITTEN void *memset(void *to, int value, size_t size) {
    uint8_t *next = to;
    const uint32_t word = (uint8_t)value * 0x01010101u;
    if (((uintptr_t)next & 3u) == 0) {
        for (; size >= 4; size -= 4, next += 4) {
            *(word_t *)next = word;
        }
    }
    while (size-- > 0) {
        *next++ = (uint8_t)value;
    }
    return to;
}
