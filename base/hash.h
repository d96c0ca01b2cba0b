/* CRC32C (Castagnoli, reflected 0x82F63B78, RFC 3720) and SHA-256 (OpenSSL's). */
#ifndef PL_BASE_HASH_H
#define PL_BASE_HASH_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Streaming: start with crc = 0; pl_crc32c(pl_crc32c(0, a, n), b, m) is the CRC of a‖b. "123456789"
 * → 0xE3069283. */
uint32_t pl_crc32c(uint32_t crc, const void *data, size_t n);

/* The table-driven path, which pl_crc32c takes where the CPU has no SSE4.2; public so that a test
 * can compare the two. */
uint32_t pl_crc32c_portable(uint32_t crc, const void *data, size_t n);

#define PL_SHA256_HEX 65 /* with its NUL */
/* Lower case; "" when libcrypto fails (out of memory). */
void pl_sha256_hex(const void *data, size_t n, char out[PL_SHA256_HEX]);
PL_MUST_CHECK
enum pl_status pl_sha256_file(const char *path, char out[PL_SHA256_HEX], struct pl_err *err);
/* 64-bit content hash of token ids and logits (the splitmix finaliser over 8-byte words; not
 * cryptographic). */
uint64_t pl_hash64(uint64_t seed, const void *data, size_t n);

#endif
