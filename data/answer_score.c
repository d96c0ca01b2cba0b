#include "data/answer_score.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 4096 /* of one text; what comes after is not looked at */

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
