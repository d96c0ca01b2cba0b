/*
 * NCCL between the two ends of a transport, both in this process. The library is opened at run time
 * (dlopen) and no header of it is needed. Communicators are non-blocking: made once, warmed up (the
 * first message sets connections up, which takes most of a second), polled for asynchronous errors
 * until a deadline, and aborted when something fails, so that nothing here can hang.
 */
#ifndef PL_SPEC_DECODE_TRANSPORT_NCCL_H
#define PL_SPEC_DECODE_TRANSPORT_NCCL_H

#include "spec_decode/transport.h"

struct pl_nccl;

PL_MUST_CHECK
enum pl_status pl_nccl_open(const struct pl_transport_opts *o, struct pl_nccl **out,
                            struct pl_err *err);
void pl_nccl_close(struct pl_nccl *n); /* accepts NULL */
/* "2.29.7", of the library that pl_nccl_open would open; "" without one. */
void pl_nccl_version(char *out, size_t size);
/* PL_EDEVICE: NCCL's text; PL_ETIMEOUT: the deadline. n is of no use afterwards. */
PL_MUST_CHECK
enum pl_status pl_nccl_carry(struct pl_nccl *n, const float *from, float *to, size_t floats,
                             struct pl_err *err);

#endif
