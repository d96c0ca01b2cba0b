#include "model/unicode.h"

#include "base/utf8.h"
#include "model/unicode_tables.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 16384u /* of the tables by hash: more than twice what they hold */
#define S_BASE 0xac00u
#define L_BASE 0x1100u
#define V_BASE 0x1161u
#define T_BASE 0x11a7u
#define L_COUNT 19u
#define V_COUNT 21u
#define T_COUNT 28u
#define S_COUNT (L_COUNT * V_COUNT * T_COUNT)

enum gcb {
    GCB_OTHER,
    GCB_CONTROL,
    GCB_EXTEND,
    GCB_ZWJ,
    GCB_RI,
    GCB_PREPEND,
    GCB_SPACING,
    GCB_L,
    GCB_V,
    GCB_T,
    GCB_CR,
    GCB_LF,
    GCB_PICTOGRAPH,
    GCB_LV,
    GCB_LVT
};

struct pair {
    uint32_t first, second, composed; /* composed 0: empty */
};

/* Filled once by init; flat, since a character's class is asked several times a byte. */
static uint8_t kind_of[PL_UNI_MAX];
static uint8_t combining_of[PL_UNI_MAX];
static uint32_t decomposed_at[2][SLOTS]; /* canonical, compatibility: place + 1 */
static struct pair pairs[SLOTS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint32_t spread(uint32_t c)
{
    return (c * 0x9e3779b1u) >> 18;
}

static uint32_t *decomposed_slot(bool compat, uint32_t c)
{
    uint32_t at = spread(c);

    for (; decomposed_at[compat][at]; at = (at + 1) % SLOTS)
        if ((pl_uni_decomposed[decomposed_at[compat][at] - 1] & 0x1fffff) == c)
            break;
    return &decomposed_at[compat][at];
}

static struct pair *pair_slot(uint32_t first, uint32_t second)
{
    uint32_t at = spread(first * 31 + second);

    for (; pairs[at].composed; at = (at + 1) % SLOTS)
        if (pairs[at].first == first && pairs[at].second == second)
            break;
    return &pairs[at];
}

static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a - S_BASE < S_COUNT && !((a - S_BASE) % T_COUNT) && b - T_BASE - 1 < T_COUNT - 1)
        return a + (b - T_BASE);
    return pair_slot(a, b)->composed;
}

/* Full decompositions of n characters give the last pair of each composite once the shorter ones
 * are known. */
static void init_pairs(uint32_t n)
{
    for (size_t at = 0; at < pl_uni_decomposed_n;) {
        const uint32_t *e = &pl_uni_decomposed[at];
        uint32_t len = e[0] >> 21 & 31, first = e[1];
        at += len + 1;
        if (len != n || !(e[0] >> 30 & 1))
            continue;
        for (uint32_t i = 2; i < len && first; i++)
            first = compose(first, e[i]);
        if (first)
            *pair_slot(first, e[len]) = (struct pair){first, e[len], e[0] & 0x1fffff};
    }
}

static void init(void)
{
    for (size_t i = 0; i < pl_uni_runs_n; i++) {
        uint32_t from = pl_uni_runs[i] >> 8;
        uint32_t to = i + 1 < pl_uni_runs_n ? pl_uni_runs[i + 1] >> 8 : PL_UNI_MAX;
        if (pl_uni_runs[i] & 255)
            memset(kind_of + from, (int)(pl_uni_runs[i] & 255), to - from);
    }
    for (size_t i = 0; i < pl_uni_combining_n; i += 2)
        memset(combining_of + pl_uni_combining[i], (int)(pl_uni_combining[i + 1] & 255),
               pl_uni_combining[i + 1] >> 8);
    for (size_t at = 0; at < pl_uni_decomposed_n;) {
        uint32_t e = pl_uni_decomposed[at];
        *decomposed_slot(e >> 31, e & 0x1fffff) = (uint32_t)at + 1;
        at += (e >> 21 & 31) + 1;
    }
    for (uint32_t n = 2; n <= 4; n++)
        init_pairs(n);
}

void pl_uni_init(void)
{
    pthread_once(&once, init);
}

uint32_t pl_uni_flags(uint32_t c)
{
    return c < PL_UNI_MAX ? pl_uni_kinds[kind_of[c]] : 0;
}

uint32_t pl_uni_lower_of(uint32_t c)
{
    size_t lo = 0, hi = pl_uni_lower_n / 4;

    if (c < 0x80)
        return c - 'A' < 26 ? c + 32 : c;
    if (c == 0x130)
        return 'i';
    /* Runs of step 2 may interleave with their neighbour: look at the two before the first that
     * begins behind c. */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if ((uint32_t)pl_uni_lower[4 * mid] <= c)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (size_t back = 1; back <= 2 && back <= lo; back++) {
        const int32_t *r = &pl_uni_lower[4 * (lo - back)];
        if (c <= (uint32_t)r[1] && !((c - (uint32_t)r[0]) % (uint32_t)r[2]))
            return c + (uint32_t)r[3];
    }
    return c;
}

size_t pl_uni_decode(const char *text, size_t len, uint32_t *c)
{
    size_t n = pl_utf8_char(text, len, c);

    if (n)
        return n;
    *c = 0xfffd;
    return 1;
}

size_t pl_uni_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

bool pl_uni_valid(const char *text, size_t len)
{
    uint32_t c;

    for (size_t at = 0, n; at < len; at += n) {
        n = pl_utf8_char(text + at, len - at, &c);
        if (!n)
            return false;
    }
    return true;
}

enum pl_status pl_uni_add(struct pl_buf *out, uint32_t c, struct pl_err *err)
{
    char s[4];

    return pl_buf_add(out, s, pl_uni_encode(c, s), err);
}

/* The decomposed characters of a text. */
struct chars {
    uint32_t *c;
    size_t n, size;
};

static enum pl_status gather(struct chars *z, const uint32_t *c, size_t n, struct pl_err *err)
{
    if (z->n + n > z->size) {
        size_t size = (z->size + n) * 2;
        uint32_t *more = realloc(z->c, size * sizeof(*more));
        if (!more)
            return pl_fail(err, PL_ENOMEM, "no memory to normalise");
        z->c = more;
        z->size = size;
    }
    memcpy(z->c + z->n, c, n * sizeof(*c));
    z->n += n;
    return PL_OK;
}

static enum pl_status decompose(struct chars *z, bool compat, const char *text, size_t len,
                                struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t at = 0; at < len && !st;) {
        uint32_t c, e = 0;
        at += pl_uni_decode(text + at, len - at, &c);
        if (c - S_BASE < S_COUNT) {
            uint32_t s = c - S_BASE, t = s % T_COUNT;
            uint32_t jamo[3] = {L_BASE + s / (V_COUNT * T_COUNT),
                                V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT, T_BASE + t};
            st = gather(z, jamo, t ? 3 : 2, err);
            continue;
        }
        if (c >= 0xa0 && compat)
            e = *decomposed_slot(true, c);
        if (c >= 0xa0 && !e)
            e = *decomposed_slot(false, c);
        st = e ? gather(z, &pl_uni_decomposed[e], pl_uni_decomposed[e - 1] >> 21 & 31, err)
               : gather(z, &c, 1, err);
    }
    return st;
}

/* Sorts n marks by their combining class, equal ones as they stood; tmp has room for n. */
static void sort_marks(uint32_t *c, size_t n, uint32_t *tmp)
{
    size_t start[257] = {0};

    if (n < 32) {
        for (size_t i = 1; i < n; i++) {
            uint32_t x = c[i];
            size_t j = i;
            for (; j && combining_of[c[j - 1]] > combining_of[x]; j--)
                c[j] = c[j - 1];
            c[j] = x;
        }
        return;
    }
    for (size_t i = 0; i < n; i++)
        start[combining_of[c[i]] + 1]++;
    for (size_t k = 1; k < 257; k++)
        start[k] += start[k - 1];
    for (size_t i = 0; i < n; i++)
        tmp[start[combining_of[c[i]]]++] = c[i];
    memcpy(c, tmp, n * sizeof(*c));
}

static enum pl_status order(struct chars *z, struct pl_err *err)
{
    uint32_t *tmp = NULL;

    for (size_t i = 0, end; i < z->n; i = end) {
        for (end = i; end < z->n && combining_of[z->c[end]];)
            end++;
        if (end - i >= 32 && !tmp) {
            tmp = malloc(z->n * sizeof(*tmp));
            if (!tmp)
                return pl_fail(err, PL_ENOMEM, "no memory to normalise");
        }
        if (end - i > 1)
            sort_marks(z->c + i, end - i, tmp);
        end += end == i;
    }
    free(tmp);
    return PL_OK;
}

static void recompose(struct chars *z)
{
    size_t kept = 0, starter = SIZE_MAX;
    int last = -1; /* class of the character kept behind the starter, −1: none */

    for (size_t i = 0; i < z->n; i++) {
        int k = combining_of[z->c[i]];
        uint32_t c = starter != SIZE_MAX && last < k ? compose(z->c[starter], z->c[i]) : 0;
        if (c) {
            z->c[starter] = c;
            continue;
        }
        if (!k)
            starter = kept;
        last = k ? k : -1;
        z->c[kept++] = z->c[i];
    }
    z->n = kept;
}

enum pl_status pl_uni_normal(enum pl_uni_form form, const char *text, size_t len,
                             struct pl_buf *out, struct pl_err *err)
{
    struct chars z = {0};
    enum pl_status st;
    size_t ascii = 0;

    while (ascii < len && (unsigned char)text[ascii] < 0x80)
        ascii++;
    if (ascii == len)
        return pl_buf_add(out, text, len, err);
    if (ascii)
        ascii--; /* a mark may join the last one */
    st = pl_buf_add(out, text, ascii, err);
    if (!st)
        st = decompose(&z, form == PL_UNI_NFKD || form == PL_UNI_NFKC, text + ascii, len - ascii,
                       err);
    if (!st)
        st = order(&z, err);
    if (!st && (form == PL_UNI_NFC || form == PL_UNI_NFKC))
        recompose(&z);
    for (size_t i = 0; i < z.n && !st; i++)
        st = pl_uni_add(out, z.c[i], err);
    free(z.c);
    return st;
}

static enum gcb gcb_of(uint32_t c)
{
    if (c - S_BASE < S_COUNT)
        return (c - S_BASE) % T_COUNT ? GCB_LVT : GCB_LV;
    return (enum gcb)(pl_uni_flags(c) / (PL_UNI_GCB & -PL_UNI_GCB) & 15);
}

static bool hangul_joins(enum gcb a, enum gcb b)
{
    return (a == GCB_L && (b == GCB_L || b == GCB_V || b == GCB_LV || b == GCB_LVT)) ||
           ((a == GCB_LV || a == GCB_V) && (b == GCB_V || b == GCB_T)) ||
           ((a == GCB_LVT || a == GCB_T) && b == GCB_T);
}

size_t pl_uni_grapheme(const char *text, size_t len)
{
    uint32_t c;
    size_t at = pl_uni_decode(text, len, &c);
    enum gcb a = gcb_of(c);
    bool picture = a == GCB_PICTOGRAPH; /* a pictograph, then only Extend so far */
    size_t flags = a == GCB_RI;

    while (at < len) {
        size_t n = pl_uni_decode(text + at, len - at, &c);
        enum gcb b = gcb_of(c);
        bool joins;
        if (a == GCB_CR)
            joins = b == GCB_LF;
        else if (a == GCB_CONTROL || a == GCB_LF || b == GCB_CONTROL || b == GCB_CR || b == GCB_LF)
            joins = false;
        else
            joins = b == GCB_EXTEND || b == GCB_ZWJ || b == GCB_SPACING || a == GCB_PREPEND ||
                    hangul_joins(a, b) || (picture && a == GCB_ZWJ && b == GCB_PICTOGRAPH) ||
                    (b == GCB_RI && flags % 2);
        if (!joins)
            break;
        if (b == GCB_PICTOGRAPH)
            picture = true;
        else if (b != GCB_EXTEND && b != GCB_ZWJ)
            picture = false;
        flags = b == GCB_RI ? flags + 1 : 0;
        a = b;
        at += n;
    }
    return at;
}
