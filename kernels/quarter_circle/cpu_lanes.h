/* Hits of blocks with vectors. cpu.h includes this file once for each instruction set and defines the vector type V of
   LANES 64-bit lanes, GROUPS, TARGET, the name suffix FN and the operations; this file undefines them at the end.

   The low half of a lane is one word of one block. The high half is left over from a product; MUL ignores it. A bundle
   of GROUPS vectors passes through the rounds together, to use all multipliers. */

#define EACH UNROLL for (int g = 0; g < GROUPS; g++)

enum { FN(bundle) = LANES * GROUPS };

/* Words 0 and 2 of the blocks of a bundle, and the products that hold words 1 and 3. The first three rounds are
   written out, because terms that are equal for all blocks are computed once. `first` is word 0 of the counter times
   M0; an addition advances it to the next bundle. */
static inline TARGET void FN(rounds)(const struct common_terms *common, V *first, V *c0, V *c2, V *p0, V *p1)
{
    const V m0 = ALL(M0), m1 = ALL(M1);
    EACH {
        V second = MUL(XOR(HIGH(first[g]), ALL(common->word2)), m1);
        p0[g] = MUL(XOR(HIGH(second), ALL(common->key0[1])), m0);
        p1[g] = MUL(XOR(first[g], ALL(common->next2)), m1);
        c0[g] = XOR3(HIGH(p1[g]), second, ALL(common->key0[2]));
        c2[g] = XOR(HIGH(p0[g]), ALL(common->next3));
        first[g] = ADD(first[g], ALL((uint64_t)M0 * FN(bundle)));
    }
    UNROLL for (int round = 3; round < 10; round++)
        EACH {
            V q0 = MUL(c0[g], m0), q1 = MUL(c2[g], m1);
            c0[g] = XOR3(HIGH(q1), p1[g], ALL(common->key0[round]));
            c2[g] = XOR3(HIGH(q0), p0[g], ALL(common->key1[round]));
            p0[g] = q0, p1[g] = q1;
        }
}

/* The number of hits in `blocks` blocks, a multiple of the bundle. */
static TARGET uint64_t FN(hits)(const struct common_terms *common, uint32_t low, uint64_t blocks)
{
    V first[GROUPS], c0[GROUPS], c2[GROUPS], p0[GROUPS], p1[GROUPS], misses = ALL(0);
    uint64_t lane[LANES], hits = 2 * blocks;
    EACH {
        for (int i = 0; i < LANES; i++) lane[i] = (uint64_t)M0 * (low + (uint32_t)(g * LANES + i));
        first[g] = LOAD(lane);
    }
    for (uint64_t done = 0; done < blocks; done += FN(bundle)) {
        FN(rounds)(common, first, c0, c2, p0, p1);
        EACH {
            V x = HALVE(c0[g]), y = HALVE(p1[g]), u = HALVE(c2[g]), v = HALVE(p0[g]);
            misses = ADD(misses, BIT62(ADD(MUL(x, x), MUL(y, y))));
            misses = ADD(misses, BIT62(ADD(MUL(u, u), MUL(v, v))));
        }
    }
    STORE(lane, misses);
    for (int i = 0; i < LANES; i++) hits -= lane[i];
    return hits;
}

#undef EACH
#undef FN
#undef TARGET
#undef V
#undef LANES
#undef GROUPS
#undef ALL
#undef LOAD
#undef STORE
#undef MUL
#undef ADD
#undef XOR
#undef XOR3
#undef HIGH
#undef HALVE
#undef BIT62
