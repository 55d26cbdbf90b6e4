/* Reductions by group: see __init__.py. Groups are in random order and their arrays may be much larger than the caches,
   so the element of a row is prefetched AHEAD rows earlier. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../clones.h"

typedef unsigned __int128 u128;

enum { AHEAD = 32, NEAR = 1 << 14, PLUS = 1, MINUS = 2, NANS = 4, SPECIAL = 0x7ff, MOST = 68, MOST_WORDS = 2 * MOST + 8 };
enum { DOUBLE, SIGNED, UNSIGNED };

#define SIGN ((uint64_t)1 << 63)
#define IMPLICIT ((uint64_t)1 << 52)
#define INFINITE ((uint64_t)SPECIAL << 52)
#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE double double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* 2^k, or 0 if that is not a normal number. */
INLINE double power_of_two(int k) { return k < -1022 || k > 1023 ? 0 : double_of((uint64_t)(k + 1023) << 52); }

/* Whether a gid is out of range. */
CLONES static int beyond(const uint32_t *gids, int64_t n, uint64_t groups) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; i++) largest = gids[i] > largest ? gids[i] : largest;
    return n && largest >= groups;
}

/* Prefetches the element of the row AHEAD rows after row i. */
INLINE void prefetch(const void *gathered, const uint32_t *gids, int64_t i, int64_t n, int64_t size) {
    if (i + AHEAD < n) __builtin_prefetch((const char *)gathered + gids[i + AHEAD] * size, 1);
}

static void add_rows(int64_t *sums, const uint32_t *gids, const int64_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        prefetch(sums, gids, i, n, sizeof *sums);
        sums[gids[i]] = (int64_t)((uint64_t)sums[gids[i]] + (x ? (uint64_t)x[i] : 1));
    }
}

/* Maps doubles to integers in the same order (reversed for `largest`), −0 less than +0; NaN is always the lowest. The
   bits of negative doubles decrease with the value: for them, all bits but the sign are flipped, by a mask without a
   branch. */
INLINE int64_t code_of(double x, int largest) {
    int64_t bits = (int64_t)bits_of(x), code = bits ^ (int64_t)((uint64_t)(bits >> 63) >> 1);
    return x != x ? INT64_MIN : largest ? ~code : code;
}

static void extreme_doubles(double *values, const uint32_t *gids, const double *x, int64_t n, int largest) {
    for (int64_t i = 0; i < n; i++) {
        prefetch(values, gids, i, n, sizeof *values);
        double *value = values + gids[i];
        if (code_of(x[i], largest) <= code_of(*value, largest)) *value = x[i] == x[i] ? x[i] : NAN;
    }
}

#define EXTREME(NAME, TYPE)                                                                              \
    static void NAME(TYPE *values, const uint32_t *gids, const TYPE *x, int64_t n, int largest) {       \
        for (int64_t i = 0; i < n; i++) {                                                                \
            prefetch(values, gids, i, n, sizeof *values);                                                \
            TYPE *value = values + gids[i];                                                              \
            if (largest ? x[i] > *value : x[i] < *value) *value = x[i];                                  \
        }                                                                                                \
    }
EXTREME(extreme_signed, int64_t)
EXTREME(extreme_unsigned, uint64_t)

static void extreme_rows(void *values, const uint32_t *gids, const void *x, int64_t n, int kind, int largest) {
    if (kind == DOUBLE) extreme_doubles(values, gids, x, n, largest);
    if (kind == SIGNED) extreme_signed(values, gids, x, n, largest);
    if (kind == UNSIGNED) extreme_unsigned(values, gids, x, n, largest);
}

/* A term in units of 2^origin: `low`, extended with words of `sign` (all bits 0 or 1), shifted left by `shift` bits. */
typedef struct {
    u128 low;
    uint64_t sign;
    unsigned shift;
} Term;

/* x, or its square, of any double. The exponent of the lowest bit of the mantissa m is max(exponent, 1) - 1075. Relative to the origin
   it is a shift to the left or to the right; `is_right` is -1 for a shift to the right, which is exact, because the
   bits below the unit are zeros. A zero may have any exponent: the masks 63 and 127 only keep its shift defined. */
INLINE Term term_of_double(double x, int origin, int square) {
    uint64_t bits = bits_of(x);
    int exponent = (int)(bits >> 52) & SPECIAL, lowest = exponent + !exponent - 1075;
    int64_t sign = (int64_t)bits >> 63, m = (int64_t)((bits & (IMPLICIT - 1)) | (uint64_t)(exponent != 0) << 52);
    int shift = (square ? 2 * lowest : lowest) - origin, is_right = shift >> 31;
    unsigned left = shift & ~is_right, right = -(shift & is_right);
    if (square) return (Term){(u128)m * m >> (right & 127), 0, left};
    m = ((m >> (right & 63)) ^ sign) - sign;
    return (Term){(u128)(__int128)m, (uint64_t)(m >> 63), left};
}

INLINE Term term_of_signed(int64_t x, int square) {
    if (square) return (Term){(u128)((__int128)x * x), 0, 0};
    return (Term){(u128)(__int128)x, (uint64_t)(x >> 63), 0};
}

INLINE Term term_of_unsigned(uint64_t x, int square) { return (Term){square ? (u128)x * x : x, 0, 0}; }

/* Adds to a word and returns the carry. */
INLINE uint64_t add_word(uint64_t *word, uint64_t more, uint64_t carry) {
    u128 sum = (u128)*word + more + carry;
    *word = (uint64_t)sum;
    return (uint64_t)(sum >> 64);
}

/* Adds a term to a number of `words` words. The term has three words from its first one on; all others hold its sign.
   Once the carry cancels the sign, no further word changes. */
INLINE void add_term(uint64_t *limb, int words, Term term) {
    if (words == 2) {
        u128 sum = ((u128)limb[1] << 64 | limb[0]) + (term.low << (term.shift & 127));
        limb[0] = (uint64_t)sum;
        limb[1] = (uint64_t)(sum >> 64);
        return;
    }
    int word = term.shift >> 6, bit = term.shift & 63;
    u128 low = term.low << bit, high = ((u128)term.sign << 64 | (uint64_t)(term.low >> 64)) << bit;
    uint64_t carry = 0;
    limb += word;
    words -= word;
    if (words > 0) carry = __builtin_add_overflow(limb[0], (uint64_t)low, &limb[0]);
    if (words > 1) carry = add_word(&limb[1], (uint64_t)(low >> 64), carry);
    if (words > 2) carry = add_word(&limb[2], (uint64_t)(high >> 64), carry);
    for (int k = 3; k < words && carry != (term.sign & 1); k++) carry = add_word(&limb[k], term.sign, carry);
}

typedef struct {
    int64_t *limbs;
    uint8_t *specials;
    const uint32_t *gids;
    const void *x;
    int64_t n, groups;
    int words, kind, origin, square;
} Gather;

/* A double that is an integer of less than 105 bits: the bits from 2^52 on, and the others, are converted exactly. */
INLINE Term term_of_units(double units) {
    int64_t high = (int64_t)(units * 0x1p-52), low = (int64_t)(units - (double)high * 0x1p52);
    u128 m = ((u128)(__int128)high << 52) + (u128)(__int128)low;
    return (Term){m, (uint64_t)((__int128)m >> 127), 0};
}

/* `far`: the sums do not fit into the caches, so that they are prefetched. */
INLINE void gather(const Gather *g, int words, int kind, int square, int far) {
    uint64_t *limbs = (uint64_t *)g->limbs;
    const uint32_t *gids = g->gids;
    const int origin = g->origin;
    /* In units of 2^unit, most doubles are integers of less than 105 bits, and of less than 63 bits if they are squared.
       With a scale of 0, none is. */
    const int unit = square ? origin / 2 : origin;
    const double scale = square && origin % 2 ? 0 : power_of_two(-unit), most = square ? 0x1p62 : 0x1p104;
    const double limit = scale > 0 ? most : -1;
    for (int64_t i = 0; i < g->n; i++) {
        if (far) prefetch(limbs, gids, i, g->n, words * 8);
        uint64_t *limb = limbs + gids[i] * (uint64_t)words;
        if (kind == DOUBLE) {
            double x = ((const double *)g->x)[i], units = x * scale;
            if (__builtin_expect(fabs(units) < limit, 1))
                add_term(limb, words, square ? term_of_signed((int64_t)units, 1) : term_of_units(units));
            else if (__builtin_expect((bits_of(x) & INFINITE) == INFINITE, 0))
                g->specials[gids[i]] |= x != x ? NANS : x > 0 ? PLUS : MINUS;
            else
                add_term(limb, words, term_of_double(x, origin, square));
        } else if (kind == SIGNED)
            add_term(limb, words, term_of_signed(((const int64_t *)g->x)[i], square));
        else
            add_term(limb, words, term_of_unsigned(((const uint64_t *)g->x)[i], square));
    }
}

INLINE void gather_kind(const Gather *g, int words, int far) {
    if (g->kind == DOUBLE) g->square ? gather(g, words, DOUBLE, 1, far) : gather(g, words, DOUBLE, 0, far);
    if (g->kind == SIGNED) g->square ? gather(g, words, SIGNED, 1, far) : gather(g, words, SIGNED, 0, far);
    if (g->kind == UNSIGNED) g->square ? gather(g, words, UNSIGNED, 1, far) : gather(g, words, UNSIGNED, 0, far);
}

/* Selects a specialized loop: two words, near or far, or any number of words, for each kind of number. */
CLONES static void gather_rows(const Gather *g) {
    if (g->words > 2) gather_kind(g, g->words, 1);
    else if (g->groups > NEAR) gather_kind(g, 2, 1);
    else gather_kind(g, 2, 0);
}

static void merge_rows(int64_t *limbs, const uint32_t *gids, const int64_t *other, int64_t n, int words) {
    for (int64_t i = 0; i < n; i++, other += words) {
        prefetch(limbs, gids, i, n, words * 8);
        uint64_t *limb = (uint64_t *)limbs + gids[i] * (uint64_t)words;
        uint64_t carry = 0;
        for (int k = 0; k < words; k++) carry = add_word(limb + k, (uint64_t)other[k], carry);
    }
}

/* The bits of the smallest unit and of the largest magnitude; bits of positive doubles sort like the numbers. The unit
   of a number is the value of its lowest bit. It is computed as the number minus the same number without that bit,
   which `x & (x - 1)` clears; if the fraction has no bit, only the implicit one, the unit is the number itself. */
CLONES static void span_of_bits(const double *x, int64_t n, uint64_t *lowest, uint64_t *highest) {
    uint64_t low = INFINITE, high = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits = bits_of(x[i]) & ~SIGN, rest = bits & (IMPLICIT - 1) ? bits & (bits - 1) : 0;
        uint64_t unit = bits_of(double_of(bits) - double_of(rest));
        int finite = bits != 0 && bits < INFINITE;
        unit = finite ? unit : INFINITE;
        bits = finite ? bits : 0;
        low = unit < low ? unit : low;
        high = bits > high ? bits : high;
    }
    *lowest = low;
    *highest = high;
}

/* Whether all numbers are multiples of 2^least, and less than 2^(greatest + 1) in magnitude. In units of 2^least they are
   integers; adding 2^52 to a smaller number rounds it to an integer. A scale below 1 could round a number to zero. */
CLONES static int all_within(const double *x, int64_t n, int least, int greatest) {
    const double scale = power_of_two(-least), limit = greatest >= least + 1023 ? INFINITY : power_of_two(greatest + 1 - least);
    int64_t wrong = 0;
    if (scale < 1 || limit == 0) return 0;
    for (int64_t i = 0; i < n; i++) {
        double units = fabs(x[i] * scale);
        int whole = ((units + 0x1p52) - 0x1p52 == units) | (units >= 0x1p52);
        wrong += !(whole & (units < limit));
    }
    return !wrong;
}

/* floor(log2) of a positive double, from its bits; 1024 for infinity, −1075 for zero. */
static int exponent_of(uint64_t bits) {
    int exponent = (int)(bits >> 52);
    return exponent ? exponent - 1023 : bits ? -1011 - __builtin_clzll(bits) : -1075;
}

/* A non-negative integer of `size` words, lowest first. */
typedef struct {
    uint64_t word[MOST_WORDS];
    int size;
} Whole;

static void trim(Whole *a) {
    while (a->size && !a->word[a->size - 1]) a->size--;
}

/* a = |limbs| · 2^(64 · below); returns whether the limbs are negative. */
static int magnitude_of(const int64_t *limbs, int words, int below, Whole *a) {
    uint64_t negative = limbs[words - 1] < 0, carry = negative;
    memset(a->word, 0, below * sizeof *a->word);
    for (int k = 0; k < words; k++) {
        u128 sum = (u128)((uint64_t)limbs[k] ^ -negative) + carry;
        a->word[below + k] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
    a->size = below + words;
    trim(a);
    return (int)negative;
}

/* a = floor(a / divisor); returns whether the remainder is not zero. */
static int divide(Whole *a, uint64_t divisor) {
    uint64_t rest = 0;
    if (divisor == 1) return 0;
    for (int k = a->size; k--;) {
        u128 part = (u128)rest << 64 | a->word[k];
        if (!rest) {
            a->word[k] = (uint64_t)part / divisor;
            rest = (uint64_t)part % divisor;
        } else {
            a->word[k] = (uint64_t)(part / divisor);
            rest = (uint64_t)(part - (u128)a->word[k] * divisor);
        }
    }
    trim(a);
    return rest != 0;
}

/* 64 bits of a from bit `first` on, which may be negative; bits outside of a are zero. */
static uint64_t bits_at(const Whole *a, int64_t first) {
    int64_t word = first >> 6;
    int bit = first & 63;
    uint64_t low = word >= 0 && word < a->size ? a->word[word] : 0;
    uint64_t high = word >= -1 && word + 1 < a->size ? a->word[word + 1] : 0;
    return bit ? low >> bit | high << (64 - bit) : low;
}

/* Whether a bit of a below bit `end` is set. */
static int has_bits_below(const Whole *a, int64_t end) {
    for (int64_t k = 0; k < a->size && 64 * k < end; k++)
        if (end >= 64 * k + 64 ? a->word[k] : a->word[k] << (64 * k + 64 - end)) return 1;
    return 0;
}

/* a · 2^exponent, or if `inexact` the same for a plus a positive amount below 1, rounded to nearest, ties to even. If
   `inexact`, a must have at least 64 bits. m is a without the bits below bit `lowest`: 53 bits, or fewer if the result
   is subnormal. It is rounded up if the next bit is set (half a unit or more), except if all others are zeros (a tie)
   and m is even. */
static double rounded(const Whole *a, int exponent, int inexact, int negative) {
    if (!a->size) return negative ? -0.0 : 0.0;
    int64_t top = 64 * (int64_t)a->size - 1 - __builtin_clzll(a->word[a->size - 1]);
    int64_t lowest = top - 52 > -1074 - exponent ? top - 52 : -1074 - exponent;
    uint64_t m = lowest <= top ? bits_at(a, lowest) & ((IMPLICIT << 1) - 1) : 0;
    int half = bits_at(a, lowest - 1) & 1;
    m += half && (m & 1 || inexact || has_bits_below(a, lowest - 1));
    double x = ldexp((double)m, (int)(lowest + exponent));
    return negative ? -x : x;
}

/* The usual case of a quotient: a sum of two words and a small count. Of the sum only the upper 64 bits from its top bit
   on are divided, which leave at least 56 bits if the count has at most 8; the lower bits only make it inexact. Returns
   whether the result is a normal number. */
static int quotient_of_two(const int64_t *limbs, uint64_t count, int origin, double *result) {
    u128 sum = (u128)(uint64_t)limbs[1] << 64 | (uint64_t)limbs[0];
    int negative = limbs[1] < 0;
    sum = negative ? -sum : sum;
    if (count > 255 || !sum) return 0;
    uint64_t high = (uint64_t)(sum >> 64);
    int zeros = high ? __builtin_clzll(high) : 64 + __builtin_clzll((uint64_t)sum);
    sum <<= zeros;
    high = (uint64_t)(sum >> 64);
    uint64_t q = high / count, inexact = (high - q * count) | (uint64_t)sum;
    int dropped = 11 - __builtin_clzll(q);
    uint64_t m = q >> dropped, rest = q & (((uint64_t)1 << dropped) - 1), half = (uint64_t)1 << (dropped - 1);
    m += rest > half || (rest == half && (inexact || m & 1));
    double scale = power_of_two(origin + 64 - zeros + dropped);
    *result = (negative ? -(double)m : (double)m) * scale;
    return scale != 0 && *result - *result == 0;
}

static void quotients(const int64_t *limbs, const int64_t *counts, int origin, const uint8_t *specials, int64_t groups,
                      int words, double *results) {
    Whole a;
    for (int64_t i = 0; i < groups; i++, limbs += words) {
        int special = specials[i];
        if (!counts[i] || special) {
            int is_nan = !counts[i] || (special != PLUS && special != MINUS);
            results[i] = is_nan ? NAN : special == PLUS ? INFINITY : -INFINITY;
            continue;
        }
        if (words == 2 && quotient_of_two(limbs, counts[i], origin, &results[i])) continue;
        /* Two more words below the sum leave at least 64 bits in the quotient, even of 1 / 2^63. */
        int below = counts[i] == 1 ? 0 : 2, negative = magnitude_of(limbs, words, below, &a);
        if (!a.size) {
            results[i] = 0;
            continue;
        }
        int inexact = divide(&a, counts[i]);
        results[i] = rounded(&a, origin - 64 * below, inexact, negative);
    }
}

/* a = a · factor. */
static void multiply(Whole *a, uint64_t factor) {
    uint64_t carry = 0;
    for (int k = 0; k < a->size; k++) {
        u128 product = (u128)a->word[k] * factor + carry;
        a->word[k] = (uint64_t)product;
        carry = (uint64_t)(product >> 64);
    }
    a->word[a->size] = carry;
    a->size += carry != 0;
}

/* a = a − b² · 2^(64 · below); the result must not be negative. */
static void subtract_square(Whole *a, const Whole *b, int below) {
    for (int i = 0; i < b->size; i++) {
        u128 product = 0;
        uint64_t borrow = 0;
        for (int k = 0; i + k + below < a->size; k++) {
            product = (product >> 64) + (k < b->size ? (u128)b->word[i] * b->word[k] : 0);
            u128 difference = (u128)a->word[i + k + below] - (uint64_t)product - borrow;
            a->word[i + k + below] = (uint64_t)difference;
            borrow = (uint64_t)(difference >> 64) & 1;
            if (k >= b->size && !(product >> 64) && !borrow) break;
        }
    }
    trim(a);
}

/* (n Σx² − (Σx)²) / n / (n − ddof). Two integer divisions in sequence give the floor of the whole quotient. BELOW more
   words below the numerator leave at least 64 bits in it. */
static void variances(const int64_t *limbs, int words, const int64_t *squares, int square_words, const int64_t *counts,
                      int origin, const uint8_t *specials, int64_t ddof, int64_t groups, double *results) {
    enum { BELOW = 3 };
    Whole a, b;
    for (int64_t i = 0; i < groups; i++, limbs += words, squares += square_words) {
        if (specials[i] || counts[i] <= ddof) {
            results[i] = NAN;
            continue;
        }
        magnitude_of(limbs, words, 0, &b);
        magnitude_of(squares, square_words, BELOW, &a);
        multiply(&a, counts[i]);
        subtract_square(&a, &b, BELOW);
        if (!a.size) {
            results[i] = 0;
            continue;
        }
        int inexact = divide(&a, counts[i]);
        inexact |= divide(&a, counts[i] - ddof);
        results[i] = rounded(&a, 2 * origin - 64 * BELOW, inexact, 0);
    }
}
