/* The digest of one row: see __init__.py. */

#include <stdint.h>

#include "../clones.h"

/* An element of an array that may be unaligned. */
typedef uint64_t Word __attribute__((aligned(1)));

/* x86-64-v4 has vector multiplication of 64-bit integers; v3 composes a product of three 32-bit products. */
CLONES static uint64_t digest_row(const Word *bits, uint64_t first, int64_t columns) {
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t sum = 0, key = (first + 1) * golden;
    for (int64_t c = 0; c < columns; c++, key += golden) {
        uint64_t h = bits[c] ^ key;
        h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
        sum += h ^ h >> 31;
    }
    return sum;
}
