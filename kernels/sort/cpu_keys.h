/* Sorting and merging of one key type. Included once for each KEY, with names FN(name). FLIP converts a key by
   exclusive or to a RANK: an unsigned number in the same order. */

#define RANK_OF(key) ((RANK)(key) ^ FLIP)

static void FN(insert)(const KEY *from, KEY *to, int n) {
    for (int i = 0; i < n; i++) {
        KEY key = from[i];
        int j = i;
        for (; j && to[j - 1] > key; j--) to[j] = to[j - 1];
        to[j] = key;
    }
}

CLONES static void FN(range)(const KEY *keys, int64_t n, RANK *low, RANK *high) {
    KEY least = keys[0], most = keys[0];
    for (int64_t i = 1; i < n; i++) {
        least = keys[i] < least ? keys[i] : least;
        most = keys[i] > most ? keys[i] : most;
    }
    *low = RANK_OF(least);
    *high = RANK_OF(most);
}

#define BUCKET_OF(key) ((RANK)(RANK_OF(key) - low) >> shift)

static __attribute__((noinline)) void FN(count)(const KEY *restrict from, int64_t n, RANK low, int shift,
                                                int64_t *restrict count) {
    for (int64_t i = 0; i < n; i++) count[BUCKET_OF(from[i])]++;
}

static __attribute__((noinline)) void FN(scatter)(const KEY *restrict from, KEY *restrict to, int64_t n, RANK low,
                                                  int shift, int64_t *restrict at) {
    for (int64_t i = 0; i < n; i++) to[at[BUCKET_OF(from[i])]++] = from[i];
}

/* Sorts n keys of `source` into `here` if `stay`, otherwise into `there`; both arrays are overwritten. `source` is
   `here` or a separate array that is only read. */
static void FN(sort)(const KEY *source, KEY *here, KEY *there, int64_t n, int stay) {
    KEY *out = stay ? here : there;
    if (n <= FEW) {
        FN(insert)(source, out, (int)n);
        return;
    }
    if (n <= network) {
        NETWORK(source, out, (int)n);
        return;
    }
    RANK low, high;
    FN(range)(source, n, &low, &high);
    const int range = width(high - low), bits = digits(n) < range ? digits(n) : range, shift = range - bits;
    if (!range) {
        if (out != source) memcpy(out, source, (size_t)n * sizeof(KEY));
        return;
    }
    int64_t at[BUCKETS], begin = 0;
    const int buckets = 1 << bits;
    memset(at, 0, (size_t)buckets * sizeof *at);
    FN(count)(source, n, low, shift, at);
    for (int b = 0; b < buckets; b++) {
        int64_t keys = at[b];
        at[b] = begin;
        begin += keys;
    }
    FN(scatter)(source, there, n, low, shift, at); /* afterwards, `at` has the ends of the buckets */
    if (!shift && stay) memcpy(here, there, (size_t)n * sizeof(KEY));
    if (!shift) return;
    begin = 0;
    for (int b = 0; b < buckets; begin = at[b++])
        if (at[b] > begin) FN(sort)(there + begin, there + begin, here + begin, at[b] - begin, !stay);
}

/* The number of keys of a among the first `count` keys of the merged a and b. */
static int64_t FN(crossing)(const KEY *a, int64_t m, const KEY *b, int64_t n, int64_t count) {
    int64_t low = count > n ? count - n : 0, high = count < m ? count : m;
    while (low < high) {
        int64_t half = low + (high - low) / 2;
        if (a[half] <= b[count - half - 1])
            low = half + 1;
        else
            high = half;
    }
    return low;
}

#define NEXT(c)                                                       \
    {                                                                 \
        int second = *b[c] < *a[c];                                   \
        const KEY *taken = second ? b[c] : a[c];                      \
        if (order)                                                    \
            *next[c]++ = taken - origin;                              \
        else                                                          \
            *to[c]++ = *taken;                                        \
        b[c] += second;                                               \
        a[c] += !second;                                              \
    }

/* Merges `first` and `second` into `out`, or writes into `order` the offset of each key from `origin`; among equal
   keys, those of `first` come first. Four independent parts are merged in one loop, so that their memory accesses
   overlap. */
static inline __attribute__((always_inline)) void FN(merge_to)(const KEY *first, int64_t m, const KEY *second, int64_t n,
                                                              KEY *out, int64_t *order, const KEY *origin) {
    enum { PARTS = 4 };
    const KEY *a[PARTS + 1], *b[PARTS + 1];
    KEY *to[PARTS];
    int64_t *next[PARTS];
    for (int c = 0; c <= PARTS; c++) {
        int64_t count = (m + n) / PARTS * c + (m + n) % PARTS * c / PARTS, taken = FN(crossing)(first, m, second, n, count);
        a[c] = first + taken;
        b[c] = second + (count - taken);
        if (c < PARTS && order) next[c] = order + count;
        if (c < PARTS && !order) to[c] = out + count;
    }
    const KEY *a_end[PARTS], *b_end[PARTS];
    for (int c = 0; c < PARTS; c++) a_end[c] = a[c + 1], b_end[c] = b[c + 1];
    for (;;) {
        int64_t steps = INT64_MAX;
        for (int c = 0; c < PARTS; c++) {
            steps = a_end[c] - a[c] < steps ? a_end[c] - a[c] : steps;
            steps = b_end[c] - b[c] < steps ? b_end[c] - b[c] : steps;
        }
        if (!steps) break;
        for (; steps; steps--) {
            NEXT(0) NEXT(1) NEXT(2) NEXT(3)
        }
    }
    for (int c = 0; c < PARTS; c++) {
        while (a[c] < a_end[c] && b[c] < b_end[c]) NEXT(c)
        int64_t left = a_end[c] - a[c], right = b_end[c] - b[c];
        if (order) {
            for (int64_t i = 0; i < left; i++) *next[c]++ = a[c] - origin + i;
            for (int64_t i = 0; i < right; i++) *next[c]++ = b[c] - origin + i;
        } else {
            memcpy(to[c], a[c], (size_t)left * sizeof(KEY));
            memcpy(to[c] + left, b[c], (size_t)right * sizeof(KEY));
        }
    }
}

static void FN(merge)(const KEY *a, int64_t m, const KEY *b, int64_t n, KEY *out) {
    FN(merge_to)(a, m, b, n, out, NULL, NULL);
}

static void FN(merge_order)(const KEY *a, int64_t m, const KEY *b, int64_t n, int64_t *order) {
    FN(merge_to)(a, m, b, n, NULL, order, a);
}

#undef NEXT
#undef BUCKET_OF
#undef RANK_OF
#undef KEY
#undef RANK
#undef FLIP
#undef FN
#undef NETWORK
