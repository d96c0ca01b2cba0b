#include "data/answer_score.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX PL_ANSWER_WORDS

struct words {
    char *text;                  /* lower case, blanks between words */
    const char *word[WORDS_MAX]; /* into text */
    size_t n;
};

static bool in(const char *const *list, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], word) == 0)
            return true;
    return false;
}
#define IN(list, word) in(list, sizeof(list) / sizeof((list)[0]), word)

static const char *const articles[] = {"a", "an", "the"};
/* What says how things stand to each other, not what they are. */
static const char *const stop_words[] = {
    "and",  "are",   "as",    "at",   "be",    "been",  "being", "by",   "can",  "does", "for",
    "from", "has",   "have",  "in",   "into",  "is",    "it",    "its",  "of",   "on",   "or",
    "that", "their", "there", "they", "this",  "these", "those", "to",   "was",  "were", "which",
    "with", "while", "also",  "who",  "where", "what",  "some",  "then", "than", "them"};

static const char *as_digits(const char *word)
{
    static const char *const names[] = {
        "zero",     "one",     "two",     "three",     "four",     "five",     "six",
        "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",   "thirteen",
        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"};
    static const char *const digits[] = {"0",  "1",  "2",  "3",  "4",  "5",  "6",
                                         "7",  "8",  "9",  "10", "11", "12", "13",
                                         "14", "15", "16", "17", "18", "19", "20"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], word) == 0)
            return digits[i];
    return word;
}

/* ASCII is folded; other bytes stand for themselves, so that words of any script count. */
static bool split(const char *s, struct words *w)
{
    size_t len = strlen(s), n = 0;
    w->n = 0;
    w->text = malloc(len + 1);
    if (!w->text)
        return false;
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)s[i];
        if (c == '\'')
            continue;
        w->text[n++] = c >= 0x80 || isalnum(c) ? (char)tolower(c) : ' ';
    }
    w->text[n] = '\0';
    for (char *at = w->text, *word, *rest = NULL; w->n < WORDS_MAX; at = NULL) {
        word = strtok_r(at, " ", &rest);
        if (!word)
            break;
        if (!IN(articles, word))
            w->word[w->n++] = as_digits(word);
    }
    return true;
}

static double equal(const struct words *a, const struct words *b)
{
    if (a->n != b->n)
        return 0;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->word[i], b->word[i]) != 0)
            return 0;
    return 1;
}

static int by_word(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void keep_content(struct words *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++)
        if (!IN(stop_words, w->word[i]))
            w->word[n++] = w->word[i];
    w->n = n;
    qsort(w->word, n, sizeof w->word[0], by_word);
}

static double f1(struct words *a, struct words *b)
{
    size_t common = 0;
    keep_content(a);
    keep_content(b);
    for (size_t i = 0, k = 0; i < a->n && k < b->n;) {
        const int c = strcmp(a->word[i], b->word[k]);
        common += c == 0;
        i += c <= 0;
        k += c >= 0;
    }
    return a->n + b->n ? 2.0 * (double)common / (double)(a->n + b->n) : 1;
}

double pl_answer_score(const char *answer, const char *right)
{
    struct words *w = calloc(2, sizeof *w);
    double score = 0;
    if (w && split(answer, &w[0]) && split(right, &w[1]))
        score = w[1].n <= PL_SHORT_ANSWER ? equal(&w[0], &w[1]) : f1(&w[0], &w[1]);
    if (w) {
        free(w[0].text);
        free(w[1].text);
    }
    free(w);
    return score;
}

static bool beside(const char *s, size_t at, size_t len)
{
    const unsigned char before = at ? (unsigned char)s[at - 1] : ' ';
    const unsigned char after = (unsigned char)s[at + len];

    return isalnum(before) || before >= 0x80 || isalnum(after) || after >= 0x80;
}

double pl_answer_holds(const char *answer, const char *right)
{
    const size_t len = strlen(right);

    for (const char *at = answer; len && (at = strstr(at, right)); at++)
        if (!beside(answer, (size_t)(at - answer), len))
            return 1;
    return 0;
}

/* ---- LongBench ---- */

/* Lower case, punctuation dropped, split at white space, articles dropped. */
static bool normal_words(const char *s, struct words *w)
{
    size_t n = 0;
    w->n = 0;
    w->text = malloc(strlen(s) + 1);
    if (!w->text)
        return false;
    for (; *s; s++) {
        const unsigned char c = (unsigned char)*s;
        if (c < 0x80 && ispunct(c))
            continue;
        w->text[n++] = isspace(c) ? ' ' : c < 0x80 ? (char)tolower(c) : (char)c;
    }
    w->text[n] = '\0';
    for (char *at = w->text, *word, *rest = NULL; w->n < WORDS_MAX; at = NULL) {
        word = strtok_r(at, " ", &rest);
        if (!word)
            break;
        if (!IN(articles, word))
            w->word[w->n++] = word;
    }
    return true;
}

/* Longest common subsequence, by the last row of its table. */
static size_t common_sequence(const struct words *a, const struct words *b, uint16_t *row)
{
    memset(row, 0, (b->n + 1) * sizeof *row);
    for (size_t i = 0; i < a->n; i++) {
        uint16_t before = 0; /* row[k] of the line above */
        for (size_t k = 0; k < b->n; k++) {
            const uint16_t above = row[k + 1];
            if (strcmp(a->word[i], b->word[k]) == 0)
                row[k + 1] = (uint16_t)(before + 1);
            else if (row[k] > above)
                row[k + 1] = row[k];
            before = above;
        }
    }
    return row[b->n];
}

static double balance(size_t common, size_t a, size_t b)
{
    return common ? 2.0 * (double)common / (double)(a + b) : 0;
}

static size_t common_words(struct words *a, struct words *b)
{
    size_t common = 0;

    qsort(a->word, a->n, sizeof a->word[0], by_word);
    qsort(b->word, b->n, sizeof b->word[0], by_word);
    for (size_t i = 0, k = 0; i < a->n && k < b->n;) {
        const int c = strcmp(a->word[i], b->word[k]);
        common += c == 0;
        i += c <= 0;
        k += c >= 0;
    }
    return common;
}

static double most(double a, double b)
{
    return a > b ? a : b;
}

bool pl_answer_scores(const char *answer, const char *const *right, size_t n,
                      struct pl_answer_scores *out)
{
    struct words *w = calloc(2, sizeof *w);
    uint16_t *row = malloc((WORDS_MAX + 1) * sizeof *row);
    struct pl_answer_scores best = {0, 0, 0};
    bool ok = w && row;

    for (size_t i = 0; i < n && ok; i++) {
        ok = normal_words(answer, &w[0]) && normal_words(right[i], &w[1]);
        if (ok) {
            best.exact_match = most(best.exact_match, equal(&w[0], &w[1]));
            best.rouge_l =
                most(best.rouge_l, balance(common_sequence(&w[0], &w[1], row), w[0].n, w[1].n));
            best.f1 = most(best.f1, balance(common_words(&w[0], &w[1]), w[0].n, w[1].n));
        }
        free(w[0].text);
        free(w[1].text);
        w[0].text = w[1].text = NULL;
    }
    free(w);
    free(row);
    if (ok)
        *out = best;
    return ok;
}

/* Of the first line that holds something. */
static bool named(const char *answer, const char *label)
{
    const size_t skip = strspn(answer, "\r\n"), line = strcspn(answer + skip, "\n");
    const char *at = *label ? strstr(answer + skip, label) : NULL;

    return at && (size_t)(at - answer) + strlen(label) <= skip + line;
}

double pl_answer_classification(const char *answer, const char *const *right, size_t n,
                                const char *const *classes, size_t n_classes)
{
    double best = 0;

    for (size_t i = 0; i < n; i++) {
        size_t count = 0;
        bool hit = false;
        for (size_t k = 0; k < n_classes; k++) {
            const bool same = strcmp(classes[k], right[i]) == 0;
            if (!named(answer, classes[k]) || (!same && strstr(right[i], classes[k])))
                continue;
            count++;
            hit = hit || same;
        }
        if (hit)
            best = most(best, 1.0 / (double)count);
    }
    return best;
}
