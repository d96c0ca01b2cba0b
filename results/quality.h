/*
 * What an answer was worth: the columns of /quality, in the order of /axes/metric. A trial has some
 * of them; the first one that it has speaks for it beside a speedup. Formulas: docs/METRICS.md.
 */
#ifndef PL_RESULTS_QUALITY_H
#define PL_RESULTS_QUALITY_H

#include <stdbool.h>

/* X(symbol, name, more is better, mean over trials is the geometric one) */
#define PL_QUALITY_LIST(X)                                                                         \
    X(ACCURACY, "accuracy", true, false)             /* 1: the answer is right, 0: it is not */    \
    X(F1, "f1", true, false)                         /* of words, best over the references */      \
    X(ROUGE_L, "rouge_l", true, false)               /* likewise */                                \
    X(EXACT_MATCH, "exact_match", true, false)       /* 0 or 1 */                                  \
    X(CLASSIFICATION, "classification", true, false) /* the right label, and no other, is named */ \
    X(PERPLEXITY, "perplexity", false, true)         /* of what the text goes on with */           \
    X(AGREEMENT, "agreement", true, false)           /* generated ids equal to the baseline's */   \
    X(ANSWER_TOKENS, "answer_tokens", true, false)   /* no score: ids before the model's own end */

enum pl_quality {
#define PL_X(sym, name, more, geometric) PL_QUALITY_##sym,
    PL_QUALITY_LIST(PL_X)
#undef PL_X
        PL_QUALITY_COUNT
};

const char *pl_quality_name(enum pl_quality q); /* "unknown" beyond the list */
/* PL_QUALITY_COUNT for names that are not in the list. */
enum pl_quality pl_quality_parse(const char *name);
bool pl_quality_more_is_better(enum pl_quality q);
bool pl_quality_geometric(enum pl_quality q);
/* [PL_QUALITY_COUNT] names, for a file's spec. */
const char *const *pl_quality_names(void);

#endif
