/* Find the records of CSV text; see __init__.py for the states and the classes of bytes. */
#include <stdint.h>
#include <string.h>

enum { RECORD, FIELD, INSIDE, QUOTED, CLOSED, COMMENT, RETURN, STATES };
enum { OTHER, DELIMITER, QUOTE, FEED, CARRIAGE, HASH, CLASSES };

static const uint8_t NEXT[STATES][CLASSES] = {
    {INSIDE, FIELD, QUOTED, RECORD, RETURN, COMMENT},
    {INSIDE, FIELD, QUOTED, RECORD, RETURN, INSIDE},
    {INSIDE, FIELD, INSIDE, RECORD, RETURN, INSIDE},
    {QUOTED, QUOTED, CLOSED, QUOTED, QUOTED, QUOTED},
    {INSIDE, FIELD, QUOTED, RECORD, RETURN, INSIDE},
    {COMMENT, COMMENT, COMMENT, RECORD, RETURN, COMMENT},
    {INSIDE, FIELD, QUOTED, RECORD, RETURN, COMMENT},
};

/* Bytes for which `transitions` reads a part from every state before it looks whether states have become equal. */
enum { PART = 4096 };

static int64_t count_byte(const uint8_t *text, int64_t n, uint8_t byte)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += text[i] == byte;
    return count;
}

/* Scan from the begin of a record to the end of the text, as long as it is well formed: quotes enclose fields or are
   doubled, and there are no comments. Then a quote ends at the next one, and nothing but line ends and quotes matters.
   Return 0 if the text is not so. */
static int scan_well_formed(const uint8_t *text, int64_t begin, int64_t n, const uint8_t *classes, int64_t *found)
{
    static const uint8_t AFTER[CLASSES] = {INSIDE, FIELD, CLOSED, RECORD, RETURN, INSIDE};
    int64_t last = begin, lines = 0;
    uint8_t before = FEED;
    for (int byte = 0; byte < 256; byte++)
        if (classes[byte] == FEED || classes[byte] == CARRIAGE)
            lines += count_byte(text + begin, n - begin, byte);
    for (int64_t i = begin; i < n; i++) {
        const uint8_t kind = classes[text[i]];
        if (kind == QUOTE) {
            const uint8_t *end = memchr(text + i + 1, text[i], n - i - 1);
            if (before == OTHER)
                return 0;
            if (!end) {
                before = CLASSES;
                break;
            }
            i = end - text;
        } else if (kind == FEED || kind == CARRIAGE) {
            lines--;
            if (kind == FEED || (i + 1 < n && classes[text[i + 1]] != FEED))
                last = i + 1;
        } else if (kind == HASH)
            return 0;
        before = kind;
    }
    found[0] = before == CLASSES ? QUOTED : AFTER[before], found[2] = last, found[4] += lines;
    return 1;
}

static void scan_records(const uint8_t *text, int64_t n, const uint8_t *classes, int64_t after, int64_t *found)
{
    int64_t state = found[0], first = -1, last = -1, stray = 0, lines = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t kind = classes[text[i]];
        if (state == RECORD || (state == RETURN && kind != FEED)) {
            last = i;
            if (first < 0 && i > after) {
                first = i;
                int64_t rest[5] = {state, first, last, stray, lines};
                if (scan_well_formed(text, i, n, classes, rest)) {
                    state = rest[0], last = rest[2], lines = rest[4];
                    break;
                }
            }
        }
        stray += state == INSIDE && kind == QUOTE;
        lines += state == QUOTED && (kind == FEED || kind == CARRIAGE);
        state = NEXT[state][kind];
    }
    if (state == RECORD) {
        last = n;
        if (first < 0 && n > after)
            first = n;
    }
    found[0] = state, found[1] = first, found[2] = last, found[3] = stray, found[4] = lines;
}

static int64_t list_records(const uint8_t *text, int64_t n, const uint8_t *classes, int64_t *starts, int64_t *fields,
                            uint8_t *unclear)
{
    int64_t count = 0;
    uint8_t state = RECORD, stray = 0, lines = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t kind = classes[text[i]];
        if (state == RETURN && kind == FEED) {
            state = RECORD;
            continue;
        }
        if (state == RECORD || state == RETURN) {
            starts[count] = i;
            fields[count] = unclear[count] = stray = lines = 0;
            count++;
        }
        stray |= state == INSIDE && kind == QUOTE;
        lines |= state == QUOTED && (kind == FEED || kind == CARRIAGE);
        const int64_t delimits = kind == DELIMITER && state != QUOTED && state != COMMENT;
        state = NEXT[state][kind];
        if (state != RECORD && state != RETURN && state != COMMENT)
            fields[count - 1] = (fields[count - 1] ? fields[count - 1] : 1) + delimits;
        unclear[count - 1] = stray & lines;
    }
    return count;
}

/* After a few fields most states lead to the same state. So each part of the text is read once for each state that is
   still different, which is once or twice. */
static void map_states(const uint8_t *text, int64_t n, const uint8_t *classes, int64_t *ends)
{
    for (int64_t begin = 0; begin < STATES; begin++)
        ends[begin] = begin;
    for (int64_t i = 0; i < n; i += PART) {
        const int64_t stop = n - i < PART ? n : i + PART;
        int64_t next[STATES];
        uint8_t known[STATES] = {0};
        for (int64_t begin = 0; begin < STATES; begin++) {
            const int64_t from = ends[begin];
            if (!known[from]) {
                int64_t state = from;
                for (int64_t j = i; j < stop; j++)
                    state = NEXT[state][classes[text[j]]];
                next[from] = state;
                known[from] = 1;
            }
            ends[begin] = next[from];
        }
    }
}
