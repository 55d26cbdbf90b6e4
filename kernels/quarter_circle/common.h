/* Shared by CPU and GPU: valid C and CUDA C. */
#define WORD unsigned int
#include "../philox/rounds.h"

/* Values that are equal for all blocks with the same high word of the index: words 1 and 3 of the counter, the keys of
   all rounds, and their terms in the first rounds. */
struct common_terms {
    WORD word1, word3, key0[10], key1[10];
    WORD word2, next2, next3; /* common terms of word 2 after one and two rounds, and of word 3 after two */
};

INLINE struct common_terms common_of(unsigned long long seed, WORD stream, unsigned long long index)
{
    struct common_terms common;
    common.word1 = (WORD)(index >> 32), common.word3 = stream;
    UNROLL for (int round = 0; round < 10; round++) {
        common.key0[round] = (WORD)seed + (WORD)round * 0x9E3779B9u;
        common.key1[round] = (WORD)(seed >> 32) + (WORD)round * 0xBB67AE85u;
    }
    const unsigned long long shared = (unsigned long long)M0 * (common.word1 ^ common.key0[0]);
    common.word2 = stream ^ common.key1[0];
    common.next2 = (WORD)(shared >> 32) ^ common.key1[1];
    common.next3 = (WORD)shared ^ common.key1[2];
    return common;
}

/* 1 if a point is not a hit: the top bit of x² + y². */
INLINE WORD miss(WORD x_word, WORD y_word)
{
    const unsigned long long x = x_word >> 1, y = y_word >> 1;
    return (WORD)((x * x + y * y) >> 62);
}

/* Whether point 0 (bit 0) and point 1 (bit 1) of a block are hits. */
INLINE int block_hits(const struct common_terms *common, WORD low)
{
    struct block c = {low, common->word1, 0, common->word3};
    UNROLL for (int round = 0; round < 10; round++) philox_round(&c, common->key0[round], common->key1[round]);
    return (int)((miss(c.c0, c.c1) | miss(c.c2, c.c3) << 1) ^ 3);
}
