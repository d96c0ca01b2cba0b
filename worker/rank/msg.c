/* Message sizes and counts: the one place that trusts nothing. */
#include "worker/rank/msg.h"

#include <string.h>

static size_t least_size(uint32_t type)
{
    switch (type) {
#define PL_X(sym, name)                                                                            \
    case PL_MSG_##sym:                                                                             \
        return sizeof(struct pl_msg_##name);
        PL_MSG_LIST(PL_X)
#undef PL_X
    default:
        return SIZE_MAX;
    }
}

enum pl_msg_type pl_msg_check(const void *buf, size_t n)
{
    struct pl_msg_head head;
    if (n < sizeof head)
        return PL_MSG_NONE;
    memcpy(&head, buf, sizeof head);
    if (head.magic != PL_MSG_MAGIC || n < least_size(head.type))
        return PL_MSG_NONE;
    size_t want = least_size(head.type);
    if (head.type == PL_MSG_WELCOME) {
        want += ((const struct pl_msg_welcome *)buf)->json_len;
    } else if (head.type == PL_MSG_LEASE) {
        const struct pl_msg_lease *m = buf;
        want += PL_BITS(m->n_cells) * (m->has_again ? 2 : 1);
    } else if (head.type == PL_MSG_PROGRESS) {
        want += ((const struct pl_msg_progress *)buf)->n * sizeof(struct pl_msg_cell);
    }
    return n == want ? (enum pl_msg_type)head.type : PL_MSG_NONE;
}

const char *pl_msg_name(enum pl_msg_type type)
{
    static const char *const names[] = {"NONE",
#define PL_X(sym, name) #sym,
                                        PL_MSG_LIST(PL_X)
#undef PL_X
    };
    return (unsigned)type < PL_MSG_TYPES ? names[type] : "?";
}
