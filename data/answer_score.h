/* How right an answer is (docs/METRICS.md, "accuracy"). */
#ifndef PL_DATA_ANSWER_SCORE_H
#define PL_DATA_ANSWER_SCORE_H

/* 0 to 1. Both are normalised: lower case, apostrophes dropped, other punctuation to blanks, a, an
 * and the dropped, zero to twenty as digits. A right answer of at most PL_SHORT_ANSWER words: 1
 * when the two are equal, else 0. A longer one: F1 over content words (stop words dropped, each
 * counted as often as it stands): 2 · common / (words of the answer + words of the right one). */
#define PL_SHORT_ANSWER 8
double pl_answer_score(const char *answer, const char *right);

#endif
