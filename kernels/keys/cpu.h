/* The table of keys, and the words of a text: see __init__.py. */
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "../clones.h"

#define MULTIPLIER_0 0x9E3779B97F4A7C15u
#define MULTIPLIER_1 0xD6E8FEB86659FD93u
#define MULTIPLIER_2 0xA0761D6478BD642Fu
/* For functions that the compiler specializes for constant arguments: it can only do so if it inlines them. */
#define ALWAYS __attribute__((always_inline))
/* A factor that repeats a byte in all eight bytes of a word. */
#define EACH_BYTE 0x0101010101010101u

enum { INLINE = 16, SLOT = 4, BATCH = 64, RANGE = 1 << 13, LINE = 8, AHEAD = 16 };
enum { ENTRIES, POOLED, SPREAD, SEEN, STATE };

struct table {
    uint64_t *slots;
    uint8_t *pool;
    int64_t *state, rows, room;
    int64_t limit;  /* the maximum number of entries: at the limit the caller makes a larger table */
    int shift;      /* the upper 64 - shift bits of hash * SPREAD select the first slot */
};

/* A key. Bytes from `at` up to `end` can be read, also beyond the key; `fold` converts ASCII letters to lower case. */
struct key {
    uint64_t w0, w1, hash;
    const uint8_t *at, *end;
    int64_t size;
    int fold;
};

/* The capacity is the largest power of two up to `rows`; the other slots follow and take keys that overflow the end. */
static inline void open_table(struct table *t, uint64_t *slots, int64_t rows, uint8_t *pool, int64_t room,
                              int64_t *state)
{
    int bits = 63 - __builtin_clzll((uint64_t)rows);
    *t = (struct table){slots, pool, state, rows, room, ((int64_t)1 << bits) / 4 * 3, 64 - bits};
}

static inline uint64_t load(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

/* The first `size` bytes of a word, with zeros after them; any size is allowed. */
static inline uint64_t first_bytes(uint64_t word, int64_t size)
{
    return size >= 8 ? word : size <= 0 ? 0 : word & (~(uint64_t)0 >> (64 - 8 * size));
}

/* Converts eight ASCII bytes to lower case at once. In each byte, adding 0x80 - 'A' to the low seven bits sets bit 7 if
   the byte is at least 'A', and adding 0x80 - 'Z' - 1 if it is beyond 'Z'. If only the first sets it, the byte is a
   capital letter, and bit 5 is set. */
static inline uint64_t to_lower(uint64_t word)
{
    uint64_t seven = word & 0x7F * EACH_BYTE;
    uint64_t from_a = seven + (0x80 - 'A') * EACH_BYTE, beyond_z = seven + (0x80 - 'Z' - 1) * EACH_BYTE;
    return word | ((from_a ^ beyond_z) & ~word & 0x80 * EACH_BYTE) >> 2;
}

/* The exclusive or of the halves of the 128-bit product. */
static inline uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t mix_block(uint64_t hash, uint64_t w0, uint64_t w1)
{
    return mix(w0 ^ MULTIPLIER_0 ^ hash, w1 ^ MULTIPLIER_1);
}

static inline uint64_t finish_hash(uint64_t hash)
{
    return mix(hash ^ MULTIPLIER_2, MULTIPLIER_0);
}

/* The 16 bytes of a key from offset `done` as two words, padded with zeros. All 16 bytes are read at once, and those
   beyond the key are cleared; bytes near `end` are copied first, because reading beyond `end` is not allowed. */
static inline ALWAYS void load_block(const struct key *key, int64_t done, uint64_t *w0, uint64_t *w1)
{
    const uint8_t *at = key->at + done;
    int64_t left = key->size - done;
    uint8_t copy[INLINE] = {0};
    if (left < INLINE && key->end - at < INLINE) {
        memcpy(copy, at, left);
        at = copy;
    }
    *w0 = first_bytes(load(at), left), *w1 = first_bytes(load(at + 8), left - 8);
    if (key->fold) *w0 = to_lower(*w0), *w1 = to_lower(*w1);
}

static int has_beyond_ascii(const struct key *key)
{
    for (int64_t i = 0; i < key->size; i++)
        if (key->at[i] & 0x80) return 1;
    return 0;
}

static __attribute__((noinline)) void make_long(struct key *key, int fold)
{
    key->fold = fold && !has_beyond_ascii(key);
    key->hash = (uint64_t)key->size;
    for (int64_t done = 0; done < key->size; done += INLINE) {
        uint64_t w0, w1;
        load_block(key, done, &w0, &w1);
        key->hash = mix_block(key->hash, w0, w1);
    }
    key->hash = finish_hash(key->hash);
}

/* Initializes a key of `size` bytes; with `fold`, an ASCII key is converted to lower case: its words have no bit 7. */
static inline ALWAYS void make_key(struct key *key, const uint8_t *at, int64_t size, const uint8_t *end, int fold)
{
    key->at = at, key->end = end, key->size = size, key->fold = 0;
    if (size > INLINE) {
        make_long(key, fold);
        return;
    }
    load_block(key, 0, &key->w0, &key->w1);
    if (fold && !((key->w0 | key->w1) & 0x80 * EACH_BYTE)) {
        key->fold = 1;
        key->w0 = to_lower(key->w0), key->w1 = to_lower(key->w1);
    }
    key->hash = finish_hash(mix_block((uint64_t)size, key->w0, key->w1));
}

static inline uint64_t slot_size(const uint64_t *slot) { return slot[2] >> 32; }

static uint64_t slot_hash(const uint64_t *slot)
{
    if (slot_size(slot) > INLINE) return slot[0];
    return finish_hash(mix_block(slot_size(slot), slot[0], slot[1]));
}

static inline uint64_t *first_slot(const struct table *t, uint64_t hash)
{
    return t->slots + SLOT * ((hash * (uint64_t)t->state[SPREAD]) >> t->shift);
}

/* Whether the key of a slot in the pool is this key. */
static __attribute__((noinline)) int same_long(const struct table *t, const uint64_t *slot, const struct key *key)
{
    struct key there = {.at = t->pool + slot[1], .end = t->pool + t->room, .size = key->size};
    for (int64_t done = 0; done < key->size; done += INLINE) {
        uint64_t w0, w1, v0, v1;
        load_block(key, done, &w0, &w1);
        load_block(&there, done, &v0, &v1);
        if (w0 != v0 || w1 != v1) return 0;
    }
    return 1;
}

/* Stores a new key in an unused slot, with the count 0; returns 0 if the table has no room for it. */
static __attribute__((noinline)) int insert(struct table *t, uint64_t *slot, const struct key *key)
{
    if (t->state[ENTRIES] >= t->limit) return 0;
    slot[0] = key->w0, slot[1] = key->w1;
    if (key->size > INLINE) {
        uint8_t *to = t->pool + t->state[POOLED];
        if (t->state[POOLED] + key->size > t->room) return 0;
        memcpy(to, key->at, key->size);
        for (int64_t i = 0; key->fold && i < key->size; i++)
            if (to[i] >= 'A' && to[i] <= 'Z') to[i] |= 0x20;
        slot[0] = key->hash, slot[1] = (uint64_t)t->state[POOLED];
        t->state[POOLED] += key->size;
    }
    t->state[ENTRIES]++;
    slot[2] = (uint64_t)key->size << 32 | (uint64_t)t->state[ENTRIES];
    slot[3] = 0;
    return 1;
}

/* Returns the slot of a key, and inserts the key if it is new; NULL if the table has no room for it. */
static inline ALWAYS uint64_t *slot_of(struct table *t, const struct key *key)
{
    uint64_t *end = t->slots + SLOT * t->rows;
    for (uint64_t *slot = first_slot(t, key->hash); slot < end; slot += SLOT) {
        if (!slot[2]) return insert(t, slot, key) ? slot : NULL;
        if (slot_size(slot) != (uint64_t)key->size) continue;
        if (key->size > INLINE ? slot[0] == key->hash && same_long(t, slot, key)
                               : slot[0] == key->w0 && slot[1] == key->w1)
            return slot;
    }
    return NULL;
}

/* Adds weights to the keys of rows from `row` on, see `add_keys`. A batch of keys is hashed first and its slots are
   prefetched, so that the memory accesses of the batch overlap. */
static inline ALWAYS int64_t add_rows(const uint8_t *data, const uint8_t *end, const int64_t *offsets, int64_t size,
                                      int64_t row, int64_t n, const int64_t *weights, uint32_t *gids, struct table *t)
{
    struct key batch[BATCH];
    while (row < n) {
        int m = (int)(n - row < BATCH ? n - row : BATCH);
        for (int i = 0; i < m; i++) {
            int64_t begin = offsets ? offsets[row + i] : (row + i) * size;
            make_key(&batch[i], data + begin, offsets ? offsets[row + i + 1] - begin : size, end, 0);
            __builtin_prefetch(first_slot(t, batch[i].hash), 1);
        }
        for (int i = 0; i < m; i++, row++) {
            if (!offsets) batch[i].size = size;  /* so that the compiler knows the size */
            uint64_t *slot = slot_of(t, &batch[i]);
            if (!slot) return row;
            slot[3] += weights ? (uint64_t)weights[row] : 1;
            if (gids) gids[row] = (uint32_t)slot[2] - 1;
        }
    }
    return n;
}

/* Whether keys of 8 bytes are numbers in a range of less than RANGE, from *lowest on. */
CLONES static int in_range(const uint8_t *data, int64_t from, int64_t n, uint64_t *lowest)
{
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int64_t row = from, next; row < n; row = next) {
        next = row + RANGE < n ? row + RANGE : n;
        for (int64_t i = row; i < next; i++) {
            int64_t number = (int64_t)load(data + 8 * i);
            low = number < low ? number : low;
            high = number > high ? number : high;
        }
        if ((uint64_t)high - (uint64_t)low >= RANGE) return 0;
    }
    *lowest = (uint64_t)low;
    return 1;
}

/* Adds weights to keys of 8 bytes that are numbers in a small range, see `add_keys`: each key is searched in the table
   once, and its number and weight are in arrays indexed by key. */
static inline ALWAYS int64_t add_range(const uint8_t *data, const uint8_t *end, int64_t from, int64_t n, uint64_t lowest,
                         const int64_t *weights, uint32_t *gids, struct table *t)
{
    uint32_t numbers[RANGE] = {0};  /* the number of the key + 1 */
    uint64_t sums[RANGE] = {0};
    int64_t row = from;
    struct key key;
    for (; row < n; row++) {
        uint64_t index = load(data + 8 * row) - lowest;
        if (__builtin_expect(!numbers[index], 0)) {
            make_key(&key, data + 8 * row, 8, end, 0);
            uint64_t *slot = slot_of(t, &key);
            if (!slot) break;
            numbers[index] = (uint32_t)slot[2];
        }
        sums[index] += weights ? (uint64_t)weights[row] : 1;
        if (gids) gids[row] = numbers[index] - 1;
    }
    for (uint64_t index = 0; index < RANGE; index++) {
        if (!numbers[index]) continue;
        uint64_t number[2] = {lowest + index, 0};
        make_key(&key, (const uint8_t *)number, 8, (const uint8_t *)(number + 2), 0);
        slot_of(t, &key)[3] += sums[index];
    }
    return row;
}

/* Adds `weights` to the keys from row `from` on and writes key numbers to `gids`; returns the first row without room in
   the table, or n. Keys of 8 bytes, the usual case, have loops of their own: for many numbers of a small range, and one
   in which the size is a constant. A block is read as 16 bytes, which the last two rows may not have: they take the
   general loop. */
static int64_t add_keys(const uint8_t *data, const uint8_t *end, const int64_t *offsets, int64_t size, int64_t from,
                        int64_t n, const int64_t *weights, uint32_t *gids, struct table *t)
{
    uint64_t lowest;
    if (!offsets && size == 8 && n - from >= 2 * RANGE && in_range(data, from, n, &lowest))
        return weights ? add_range(data, end, from, n, lowest, weights, gids, t)
                       : add_range(data, end, from, n, lowest, NULL, gids, t);
    int64_t last = offsets || size != 8 || n < 2 ? from : n - 2;
    if (from < last) from = add_rows(data, end, NULL, 8, from, last, weights, gids, t);
    return from < last ? from : add_rows(data, end, offsets, size, from, n, weights, gids, t);
}

static int64_t rehash_slots(const uint64_t *old, int64_t rows, struct table *t)
{
    uint64_t *end = t->slots + SLOT * t->rows;
    for (const uint64_t *from = old; from < old + SLOT * rows; from += SLOT) {
        if (!from[2]) continue;
        uint64_t *slot = first_slot(t, slot_hash(from));
        while (slot < end && slot[2]) slot += SLOT;
        if (slot == end) return 0;
        memcpy(slot, from, 8 * SLOT);
    }
    return 1;
}

/* Whether the key of slot a sorts before the key of slot b; their hashes are equal. */
static int before(const struct table *t, const uint64_t *a, const uint64_t *b)
{
    uint64_t n = slot_size(a), m = slot_size(b);
    const uint8_t *x = n > INLINE ? t->pool + a[1] : (const uint8_t *)a;
    const uint8_t *y = m > INLINE ? t->pool + b[1] : (const uint8_t *)b;
    int order = memcmp(x, y, n < m ? n : m);
    return order ? order < 0 : n < m;
}

/* Lists the entries in the order of their slots, which is nearly sorted; an insertion sort completes the order. */
static void list_entries(const struct table *t, uint64_t *hashes, int64_t *rows)
{
    uint64_t spread = (uint64_t)t->state[SPREAD];
    int64_t n = 0;
    for (int64_t row = 0; row < t->rows; row++) {
        const uint64_t *slot = t->slots + SLOT * row;
        if (!slot[2]) continue;
        uint64_t hash = slot_hash(slot), product = hash * spread;
        int64_t i = n++;
        for (; i > 0; i--) {
            uint64_t other = hashes[i - 1] * spread;
            if (other < product || (other == product && hashes[i - 1] < hash)) break;
            if (hashes[i - 1] == hash && !before(t, slot, t->slots + SLOT * rows[i - 1])) break;
            hashes[i] = hashes[i - 1], rows[i] = rows[i - 1];
        }
        hashes[i] = hash, rows[i] = row;
    }
}

/* One bit for each of 64 bytes: white space, word characters, bytes beyond ASCII. */
struct classes { uint64_t white, word, high; };

/* An unsigned difference c - low is below `width` exactly if low <= c < low + width; c | 0x20 makes a letter lower
   case. */
static inline int ascii_word(unsigned c)
{
    return (c | 0x20) - 'a' < 26u || c - '0' < 10u || c == '_';
}

static inline int ascii_white(unsigned c) { return c == ' ' || c - 9 < 5u || c - 0x1C < 4u; }

#if defined(__SSE2__)
/* The same for 16 bytes: all bits of a byte are set if low <= byte < low + width. SSE2 has no unsigned comparison of
   bytes; x <= y is x == min(x, y). */
static inline __m128i within(__m128i c, int low, int width)
{
    __m128i x = _mm_sub_epi8(c, _mm_set1_epi8((char)low));
    return _mm_cmpeq_epi8(x, _mm_min_epu8(x, _mm_set1_epi8((char)(width - 1))));
}
#endif

/* The classes of 64 bytes; only one of `white` and `word` is set. `movemask` collects bit 7 of 16 bytes. */
static inline struct classes classify(const uint8_t *at, int words)
{
    struct classes found = {0, 0, 0};
#if defined(__SSE2__)
    for (int k = 0; k < 64; k += 16) {
        __m128i c = _mm_loadu_si128((const __m128i *)(at + k)), hit;
        if (words)
            hit = _mm_or_si128(_mm_or_si128(within(_mm_or_si128(c, _mm_set1_epi8(0x20)), 'a', 26), within(c, '0', 10)),
                               _mm_cmpeq_epi8(c, _mm_set1_epi8('_')));
        else
            hit = _mm_or_si128(_mm_or_si128(within(c, 9, 5), within(c, 0x1C, 4)), _mm_cmpeq_epi8(c, _mm_set1_epi8(' ')));
        *(words ? &found.word : &found.white) |= (uint64_t)(uint16_t)_mm_movemask_epi8(hit) << k;
        found.high |= (uint64_t)(uint16_t)_mm_movemask_epi8(c) << k;
    }
#else
    for (int k = 0; k < 64; k++) {
        if (words ? ascii_word(at[k]) : ascii_white(at[k])) *(words ? &found.word : &found.white) |= (uint64_t)1 << k;
        found.high |= (uint64_t)(at[k] >> 7) << k;
    }
#endif
    return found;
}

/* The length of the valid UTF-8 sequence at `at` within `left` bytes, and its code point; 0 if it is not valid. */
static inline int decode(const uint8_t *at, int64_t left, uint32_t *point)
{
    uint32_t c = at[0];
    /* 0x80 to 0xC1 and bytes from 0xF5 on begin no valid sequence. */
    int size = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (!size || size > left) return 0;
    *point = size == 1 ? c : c & (0x7Fu >> size);
    for (int i = 1; i < size; i++) {
        if ((at[i] & 0xC0) != 0x80) return 0;
        *point = *point << 6 | (at[i] & 0x3F);
    }
    /* Overlong forms, surrogates and code points beyond Unicode are not valid. */
    if (size == 3 && (*point < 0x800 || (*point >= 0xD800 && *point < 0xE000))) return 0;
    if (size == 4 && (*point < 0x10000 || *point > 0x10FFFF)) return 0;
    return size;
}

/* One bit for each byte of the characters beyond ASCII that begin in 64 bytes and are in the set; `high` marks the
   bytes beyond ASCII. The last character may end up to 3 bytes later, therefore 128 bits. */
static unsigned __int128 beyond_ascii(const uint8_t *at, int64_t left, uint64_t high, const uint8_t *set)
{
    unsigned __int128 found = 0;
    while (high) {
        int i = __builtin_ctzll(high);
        uint32_t point;
        int size = decode(at + i, left - i, &point);
        if (size && (set[point >> 3] >> (point & 7) & 1)) found |= (((unsigned __int128)1 << size) - 1) << i;
        int next = i + (size ? size : 1);
        high = next > 63 ? 0 : high & (~(uint64_t)0 << next);
    }
    return found;
}

/* Counts the keys of a batch; returns the number counted before a table had no room. With `fold`, keys that are not
   ASCII are counted in `others`. */
static inline ALWAYS int count_batch(struct key *batch, int n, int fold, struct table *t, struct table *others)
{
    for (int i = 0; i < n; i++) {
        struct table *in = fold && !batch[i].fold ? others : t;
        uint64_t *slot = slot_of(in, &batch[i]);
        if (!slot) return i;
        slot[3]++;
        in->state[SEEN]++;
    }
    return n;
}

/* Counts the words of text[start:stop], after which 64 bytes can be read; returns `stop`, or the start of the first
   word without room in its table. Words are found in 64 bytes at a time, by bits: `inside` has a bit for each byte of a
   word, and `borders` for each byte that begins a word or follows one, where `inside` differs from itself shifted by
   one byte. `open` is whether a word has begun and not ended. `x & (x - 1)` clears the lowest bit of x. */
static inline ALWAYS int64_t count_by(const uint8_t *text, int64_t start, int64_t stop, int words, int fold,
                                      const uint8_t *set, struct table *t, struct table *others)
{
    struct key batch[BATCH];
    const uint8_t *end = text + stop + 64;
    int n = 0, open = 0, done;
    int64_t begin = 0;
    unsigned __int128 listed = 0;  /* bytes of characters beyond ASCII in the set, from this position on */
    for (int64_t at = start; at < stop; at += 64) {
        struct classes c = classify(text + at, words);
        int64_t left = stop - at;
        uint64_t valid = left < 64 ? ~(~(uint64_t)0 << left) : ~(uint64_t)0;
        if (c.high & valid) listed |= beyond_ascii(text + at, left, c.high & valid & ~(uint64_t)listed, set);
        uint64_t inside = (words ? c.word | (uint64_t)listed : ~(c.white | (uint64_t)listed)) & valid;
        listed >>= 64;
        uint64_t borders = inside ^ (inside << 1 | (uint64_t)open);
        while (borders) {
            int i = __builtin_ctzll(borders);
            borders &= borders - 1;
            open = !open;
            if (open) {
                begin = at + i;
                continue;
            }
            make_key(&batch[n], text + begin, at + i - begin, end, fold);
            __builtin_prefetch(first_slot(t, batch[n++].hash), 1);
            if (n == BATCH) {
                if ((done = count_batch(batch, n, fold, t, others)) < n) return batch[done].at - text;
                n = 0;
            }
        }
    }
    if (open) make_key(&batch[n++], text + begin, stop - begin, end, fold);
    if ((done = count_batch(batch, n, fold, t, others)) < n) return batch[done].at - text;
    return stop;
}

static int64_t count_words(const uint8_t *text, int64_t start, int64_t stop, int words, int fold, const uint8_t *set,
                           struct table *t, struct table *others)
{
    if (words)
        return fold ? count_by(text, start, stop, 1, 1, set, t, others)
                    : count_by(text, start, stop, 1, 0, set, t, others);
    return fold ? count_by(text, start, stop, 0, 1, set, t, others) : count_by(text, start, stop, 0, 0, set, t, others);
}

/* Copies the concatenated bytes of the keys in these slots. */
static void copy_keys(const struct table *t, const int64_t *rows, int64_t n, uint8_t *data)
{
    for (int64_t i = 0; i < n; i++) {
        const uint64_t *slot = t->slots + SLOT * rows[i];
        uint64_t size = slot_size(slot);
        memcpy(data, size > INLINE ? t->pool + slot[1] : (const uint8_t *)slot, size);
        data += size;
    }
}

static void hash_keys(const uint8_t *data, const uint8_t *end, const int64_t *offsets, int64_t size, int64_t n,
                      uint64_t *hashes)
{
    for (int64_t row = 0; row < n; row++) {
        struct key key;
        int64_t begin = offsets ? offsets[row] : row * size;
        make_key(&key, data + begin, offsets ? offsets[row + 1] - begin : size, end, 0);
        hashes[row] = key.hash;
    }
}

static inline int64_t part_of(uint64_t hash, int64_t parts)
{
    return (int64_t)((unsigned __int128)hash * (uint64_t)parts >> 64);
}

/* The part of each key, and the number of keys before each part; `starts` has parts + 1 elements. */
static inline ALWAYS void part_rows(const uint8_t *data, const uint8_t *end, const int64_t *offsets, int64_t size,
                                    int64_t row, int64_t n, int64_t parts, uint32_t *numbers, int64_t *starts)
{
    for (; row < n; row++) {
        struct key key;
        int64_t begin = offsets ? offsets[row] : row * size;
        make_key(&key, data + begin, offsets ? offsets[row + 1] - begin : size, end, 0);
        numbers[row] = (uint32_t)part_of(key.hash, parts);
        starts[numbers[row] + 1]++;
    }
}

static void part_keys(const uint8_t *data, const uint8_t *end, const int64_t *offsets, int64_t size, int64_t n,
                      int64_t parts, uint32_t *numbers, int64_t *starts)
{
    int64_t last = offsets || size != 8 || n < 2 ? 0 : n - 2;  /* a loop of its own for keys of 8 bytes, see add_keys */
    memset(starts, 0, 8 * (parts + 1));
    part_rows(data, end, NULL, 8, 0, last, parts, numbers, starts);
    part_rows(data, end, offsets, size, last, n, parts, numbers, starts);
    for (int64_t part = 0; part < parts; part++) starts[part + 1] += starts[part];
}

/* Copies the words of a line that lie in [begin, end) of `to`. */
static void copy_line(uint64_t *to, const uint64_t *line, int64_t begin, int64_t end)
{
    int64_t first = (end - 1) & -LINE;
    if (begin < first) begin = first;
    memcpy(to + begin, line + (begin - first), 8 * (end - begin));
}

/* Sorts words stably by part. Words of a part are collected in a line, and written when the line is full: with a write
   to another place for each word, the processor would read each line before, and search its page. `next` gets the ends
   of the parts so far, `lines` takes LINE words a part; it is NULL for so many parts that words are written one by one.
   Returns whether the parts have as many words as `starts` says. */
static int move_words(const uint32_t *numbers, const int64_t *starts, int64_t parts, const uint64_t *from, int64_t n,
                       uint64_t *to, int64_t *next, uint64_t *lines)
{
    int streamed = 0;
    for (int64_t part = 0; part < parts; part++)
        if (starts[part] > starts[part + 1]) return 0;
    memcpy(next, starts, 8 * parts);
#if defined(__SSE2__)
    streamed = (uintptr_t)to % 16 == 0;
#endif
    for (int64_t row = 0; row < n; row++) {
        uint32_t part = numbers[row];
        if (part >= parts || next[part] == starts[part + 1]) return 0;
        int64_t at = next[part]++;
        if (!lines) {
            to[at] = from[row];
            continue;
        }
        uint64_t *line = lines + LINE * (int64_t)part;
        line[at % LINE] = from[row];
        if (at % LINE < LINE - 1) continue;
        if (!streamed || at - starts[part] < LINE - 1) {
            copy_line(to, line, starts[part], at + 1);
            continue;
        }
#if defined(__SSE2__)
        for (int k = 0; k < LINE; k += 2)
            _mm_stream_si128((__m128i *)(to + at + 1 - LINE + k), _mm_loadu_si128((const __m128i *)(line + k)));
#endif
    }
    for (int64_t part = 0; lines && part < parts; part++)
        if (next[part] % LINE && next[part] > starts[part])
            copy_line(to, lines + LINE * part, starts[part], next[part]);
#if defined(__SSE2__)
    _mm_sfence();
#endif
    return 1;
}

/* Copies `sizes[i]` bytes, or `size` bytes, from starts[i] to places[i]; without starts or places, rows follow one
   another. Returns the first row that is not within `room` bytes of the source and `space` bytes of the target, or n. */
static int64_t copy_rows(const uint8_t *source, int64_t room, const int64_t *starts, const int64_t *sizes, int64_t size,
                         int64_t n, uint8_t *target, int64_t space, const int64_t *places)
{
    int64_t from = 0, to = 0;
    for (int64_t row = 0; row < n; row++) {
        if (starts) {
            from = starts[row];
            if (row + AHEAD < n) __builtin_prefetch(source + starts[row + AHEAD]);
        }
        if (places) to = places[row];
        if (sizes) size = sizes[row];
        if (size < 0 || size > room || size > space || from < 0 || from > room - size || to < 0 || to > space - size)
            return row;
        memcpy(target + to, source + from, size);
        from += size;
        to += size;
    }
    return n;
}
