/* Philox4x32-10 over an array of indices: see __init__.py. */
#include <stdint.h>

#define WORD uint64_t
#include "../clones.h"
#include "rounds.h"

CLONES static void philox_words(uint64_t seed, uint64_t stream, uint64_t step, const uint64_t *restrict index,
                                uint32_t *restrict out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const struct block c = philox(seed, stream, step, index[i]);
        out[4 * i] = (uint32_t)c.c0, out[4 * i + 1] = (uint32_t)c.c1;
        out[4 * i + 2] = (uint32_t)c.c2, out[4 * i + 3] = (uint32_t)c.c3;
    }
}
