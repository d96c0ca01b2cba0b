#include "orchestrator/sweep_suggest.h"

#include <ctype.h>
#include <string.h>

#define WORD_MAX 64

static size_t min2(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t pl_word_distance(const char *a, const char *b)
{
    size_t row[3][WORD_MAX + 1];
    size_t n = strlen(a), m = strlen(b);
    if (n > WORD_MAX || m > WORD_MAX)
        return n > m ? n : m;
    for (size_t j = 0; j <= m; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *cur = row[i % 3], *prev = row[(i + 2) % 3], *prev2 = row[(i + 1) % 3];
        cur[0] = i;
        for (size_t j = 1; j <= m; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            cur[j] = min2(min2(prev[j] + 1, cur[j - 1] + 1), prev[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                tolower((unsigned char)a[i - 2]) == y)
                cur[j] = min2(cur[j], prev2[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

void pl_suggest_init(struct pl_suggest *s, const char *word)
{
    s->word = word;
    s->best = NULL;
    s->distance = (size_t)-1;
}

void pl_suggest_offer(struct pl_suggest *s, const char *candidate)
{
    /* A third of the longer word may be wrong: `sample` → `samples`, `contxts` → `contexts`, but
     * not `kv` → `dtype`. */
    size_t n = strlen(s->word), m = strlen(candidate), longer = n > m ? n : m;
    size_t limit = longer <= 2 ? 0 : longer <= 4 ? 1 : longer / 3;
    size_t d = pl_word_distance(s->word, candidate);
    if (d <= limit && d < s->distance) {
        s->best = candidate;
        s->distance = d;
    }
}
