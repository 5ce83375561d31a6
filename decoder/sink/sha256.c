#include "decoder/sink/sha256.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCK_BYTES 65536

static luna_err refused(void)
{
    return luna_error(LUNA_INTERNAL, "libcrypto does not compute SHA-256");
}

static void write_hex(const unsigned char digest[32], char hex[LUNA_SINK_SHA256_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 32; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[64] = '\0';
}

luna_err luna_sha256(const void *data, size_t len, char hex[LUNA_SINK_SHA256_BYTES])
{
    unsigned char digest[32];
    if (EVP_Digest(data, len, digest, NULL, EVP_sha256(), NULL) != 1) return refused();
    write_hex(digest, hex);
    return LUNA_OK;
}

static luna_err hash_blocks(int fd, const char *path, const luna_sha256_watch *watch,
                            EVP_MD_CTX *context, uint64_t *bytes)
{
    unsigned char block[BLOCK_BYTES];
    *bytes = 0;
    for (;;) {
        const ssize_t n = pread(fd, block, sizeof block, (off_t)*bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return luna_error_errno(LUNA_IO, "cannot read %s", path);
        if (n == 0) return LUNA_OK;
        if (EVP_DigestUpdate(context, block, (size_t)n) != 1) return refused();
        *bytes += (uint64_t)n;
        if (!watch->go_on(watch->context))
            return luna_error(LUNA_CANCELLED, "%s: not read to its end", path);
    }
}

luna_err luna_sha256_file_watched(int fd, const char *path,
                                  const luna_sha256_watch *watch,
                                  char hex[LUNA_SINK_SHA256_BYTES], uint64_t *bytes)
{
    unsigned char digest[32];
    luna_err err = LUNA_OK;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!context || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1) err = refused();
    if (err == LUNA_OK) err = hash_blocks(fd, path, watch, context, bytes);
    if (err == LUNA_OK && EVP_DigestFinal_ex(context, digest, NULL) != 1) err = refused();
    EVP_MD_CTX_free(context);
    if (err == LUNA_OK) write_hex(digest, hex);
    return err;
}

static bool always(void *context)
{
    (void)context;
    return true;
}

luna_err luna_sha256_file(int fd, const char *path, char hex[LUNA_SINK_SHA256_BYTES],
                          uint64_t *bytes)
{
    const luna_sha256_watch watch = {always, NULL};
    return luna_sha256_file_watched(fd, path, &watch, hex, bytes);
}
