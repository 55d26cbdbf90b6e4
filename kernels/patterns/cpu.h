/* Count patterns in text, and byte sequences that are not valid UTF-8: see __init__.py. */

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "../clones.h"

#define INLINE static inline __attribute__((always_inline))

/* Skips in the root state are worth their time if they are at least WORTH bytes on average; checked from TRIES skips
   on. */
enum { OUT = INT32_MIN, LANES = 64, NEAR = 3, VECTOR = 32, TRIES = 1024, WORTH = 8 };

/* Arguments of a count: see __init__.py. `end` has the ends of the last counted occurrences, relative to `text`. */
typedef struct {
    const uint8_t *text, *classes;
    const uint32_t *table;
    const int32_t *owner, *link, *length;
    const uint8_t *letters, *near;
    int64_t *end, *counts;
    int shift; /* the table has 2^shift columns */
} Search;

static inline int is_tail(uint8_t byte) { return (byte & 0xc0) == 0x80; }

/* The bytes of the character at p; if it is not valid, minus the bytes of the invalid sequence. */
static inline int sequence(const uint8_t *p) {
    uint8_t lead = p[0], low = 0x80, high = 0xbf;
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return -1;
    int size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    if (p[1] < low || p[1] > high) return -1;
    for (int k = 2; k < size; k++)
        if (!is_tail(p[k])) return -k;
    return size;
}

static int is_letter(const uint8_t *letters, const uint8_t *p, int size) {
    if (sequence(p) != size) return 0;
    uint32_t character = size == 1 ? p[0] : p[0] & (0x7f >> size);
    for (int k = 1; k < size; k++) character = character << 6 | (p[k] & 0x3f);
    return letters[character >> 3] >> (character & 7) & 1;
}

/* Whether a letter is directly before `begin` or at `end`. */
static int is_inside(const uint8_t *letters, const uint8_t *begin, const uint8_t *end) {
    for (int size = 1; size <= 4; size++)
        if (is_letter(letters, begin - size, size) || is_letter(letters, end, size)) return 1;
    return 0;
}

/* The start of an occurrence: `length` bytes, or -length characters, before its end. */
static inline int64_t begin_of(const uint8_t *text, int64_t end, int32_t length) {
    if (length >= 0) return end - length;
    for (; length < 0; length++)
        do end--;
        while (is_tail(text[end]));
    return end;
}

/* Counts the occurrences of the patterns that end in this state. */
static void count_occurrences(const Search *s, int64_t state, int64_t end) {
    for (; state; state = s->link[state]) {
        int32_t pattern = s->owner[state];
        if (pattern < 0) continue;
        int64_t begin = begin_of(s->text, end, s->length[pattern]);
        if (begin < s->end[pattern]) continue;
        if (s->letters && is_inside(s->letters, s->text + begin, s->text + end)) continue;
        s->counts[pattern]++;
        s->end[pattern] = end;
    }
}

/* A window of VECTOR bytes: a bit for each position in it at which an occurrence may begin. */
typedef struct {
    int64_t begin;
    uint32_t positions;
} Window;

#if defined(__x86_64__) && defined(__GNUC__)
#define AVX2 __attribute__((target("avx2")))
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define NIBBLES(k) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(near + 16 * (k))))
/* For each of 32 bytes, the buckets of patterns that may have this byte here: two lookups in tables of 16 bytes, by its
   lower and its upper four bits. A shuffle is such a lookup for all 32 bytes at once. */
AVX2 static inline __m256i matching_buckets(const uint8_t *near, __m256i bytes) {
    const __m256i nibble = _mm256_set1_epi8(15), high = _mm256_srli_epi16(bytes, 4);
    return _mm256_and_si256(_mm256_shuffle_epi8(NIBBLES(0), _mm256_and_si256(bytes, nibble)),
                            _mm256_shuffle_epi8(NIBBLES(1), _mm256_and_si256(high, nibble)));
}
/* The positions at which the first three bytes fit a pattern of one bucket. */
AVX2 static inline uint32_t positions_of(const uint8_t *near, const uint8_t *p) {
    __m256i all = _mm256_and_si256(matching_buckets(near, LOAD(p)), matching_buckets(near + 32, LOAD(p + 1)));
    all = _mm256_and_si256(all, matching_buckets(near + 64, LOAD(p + 2)));
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(all, _mm256_setzero_si256()));
}
/* The next position from `i` on at which an occurrence may begin, or the first position that no whole window covers. */
AVX2 static inline int64_t next_position(const Search *s, Window *window, int64_t i, int64_t stop) {
    if (i < window->begin + VECTOR) {
        uint32_t positions = window->positions & ~(uint32_t)0 << (i - window->begin);
        if (positions) return window->begin + __builtin_ctz(positions);
        i = window->begin + VECTOR;
    }
    for (; i + VECTOR + NEAR - 1 <= stop; i += VECTOR) {
        uint32_t positions = positions_of(s->near, s->text + i);
        if (!positions) continue;
        *window = (Window){i, positions};
        return i + __builtin_ctz(positions);
    }
    return i;
}
static int has_vectors(void) { return __builtin_cpu_supports("avx2"); }
#else
#define AVX2
static int64_t next_position(const Search *s, Window *window, int64_t i, int64_t stop) { return i; }
static int has_vectors(void) { return 0; }
#endif

/* Counts from `i` to `stop`, starts in `state` and returns the final state (both times the columns). In the root state
   it skips to the next possible occurrence; if the skips are too short on average, it stops skipping. */
INLINE uint32_t count_from(const Search *s, uint32_t state, int64_t i, int64_t stop, int skips) {
    Window window = {i - VECTOR, 0};
    int64_t first = i, tries = 0;
    while (i < stop) {
        if (skips && !state) {
            i = next_position(s, &window, i, stop);
            if (++tries >= TRIES && tries * WORTH > i - first) skips = 0;
        }
        do {
            state = s->table[state + s->classes[s->text[i++]]];
            if (state & OUT) {
                state &= ~(uint32_t)OUT;
                count_occurrences(s, state >> s->shift, i);
            }
        } while (i < stop && (state || !skips));
    }
    return state;
}

AVX2 static uint32_t count_with_vectors(const Search *s, uint32_t state, int64_t i, int64_t stop) {
    return count_from(s, state, i, stop, 1);
}

static uint32_t count_patterns(const Search *s, uint32_t state, int64_t i, int64_t stop) {
    return has_vectors() ? count_with_vectors(s, state, i, stop) : count_from(s, state, i, stop, 0);
}

/* Counts in lanes of 8 bits, which the compiler turns into vectors; after 255 rounds, before a lane can overflow, the
   lanes are added to the result. */
CLONES static int64_t count_line_ends(const uint8_t *text, int64_t n) {
    int64_t ends = 0, i = 0;
    while (n - i >= LANES) {
        uint8_t lane[LANES] = {0};
        for (int rounds = 0; rounds < 255 && n - i >= LANES; rounds++, i += LANES)
            for (int l = 0; l < LANES; l++) lane[l] += text[i + l] == '\n';
        for (int l = 0; l < LANES; l++) ends += lane[l];
    }
    for (; i < n; i++) ends += text[i] == '\n';
    return ends;
}

/* The number of bytes at the start of the text in whole groups of LANES that are all ASCII. */
CLONES static int64_t count_ascii(const uint8_t *text, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        uint8_t any = 0;
        for (int l = 0; l < LANES; l++) any |= text[i + l];
        if (any & 0x80) break;
    }
    return i;
}

static int64_t count_broken(const uint8_t *text, int64_t start, int64_t stop) {
    int64_t broken = 0, i = start;
    for (int back = 1; back <= 3; back++) { /* skip a sequence that began before the block */
        int size = sequence(text + start - back);
        if (size < 0) size = -size;
        if (!is_tail(text[start - back]) && size > back) i = start - back + size;
    }
    while (i < stop) {
        i += count_ascii(text + i, stop - i);
        for (int64_t end = i + LANES; i < stop && i < end;) {
            int size = sequence(text + i);
            broken += size < 0;
            i += size < 0 ? -size : size;
        }
    }
    return broken;
}
