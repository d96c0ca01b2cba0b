/* How right an answer is (docs/METRICS.md, "accuracy"). */
#ifndef PL_DATA_ANSWER_SCORE_H
#define PL_DATA_ANSWER_SCORE_H

#include <stdbool.h>
#include <stddef.h>

/* 0 to 1. Both are normalised: lower case, apostrophes dropped, other punctuation to blanks, a, an
 * and the dropped, zero to twenty as digits. A right answer of at most PL_SHORT_ANSWER words: 1
 * when the two are equal, else 0. A longer one: F1 over content words (stop words dropped, each
 * counted as often as it stands): 2 · common / (words of the answer + words of the right one). */
#define PL_SHORT_ANSWER 8
double pl_answer_score(const char *answer, const char *right);

/* 1 where `right` stands in the answer as a word of its own (neither a letter nor a digit beside
 * it), else 0. */
double pl_answer_holds(const char *answer, const char *right);

/*
 * LongBench's scores, each the best over the right answers. Texts are normalised as its qa_f1_score
 * does (ASCII to lower case, ASCII punctuation dropped, then the words a, an and the), words split
 * at ASCII white space. At most PL_ANSWER_WORDS words of a text count.
 */
#define PL_ANSWER_WORDS 4096
struct pl_answer_scores {
    double f1;          /* of words, each counted as often as it stands */
    double rouge_l;     /* F measure of the longest common subsequence of words */
    double exact_match; /* the normalised texts are equal: 1, else 0 */
};
/* False: no memory. */
bool pl_answer_scores(const char *answer, const char *const *right, size_t n,
                      struct pl_answer_scores *out);
/* LongBench's classification_score, of the answer's first line that is not empty: the classes that
 * stand in it, less those that are a part of the right one but not it; 1 / their number when the
 * right one is among them, else 0. Best over the right answers. */
double pl_answer_classification(const char *answer, const char *const *right, size_t n,
                                const char *const *classes, size_t n_classes);

#endif
