//  safetensors.c - any bytes as a safetensors file and as latents
//
//  What passes can be read without further checks: every tensor lies in the file, has
//  the bytes its shape needs, and is found by its name.

#include "common/latent_file.h"
#include "fuzz/fuzz.h"

//  Each byte is read, so that one outside is seen.
static void touch(const void *data, size_t len)
{
    const volatile uint8_t *at = data;
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++) sum ^= at[i];
    (void)sum;
}

static void check_tensor(const luna_safetensors *file, size_t i, luna_blob whole)
{
    const luna_tensor *tensor = luna_safetensors_at(file, i);
    const uint8_t *start = whole.data, *data = tensor->data;
    size_t count = 1;
    CHECK(tensor->rank <= LUNA_TENSOR_RANK_MAX);
    for (size_t d = 0; d < tensor->rank; d++) count *= tensor->shape[d];
    CHECK(count == tensor->count);
    CHECK(data >= start && data + tensor->bytes <= start + whole.len);
    if (tensor->dtype != LUNA_DTYPE_OTHER)
        CHECK(tensor->bytes == count * luna_dtype_size(tensor->dtype));
    CHECK(luna_safetensors_find(file, tensor->name) == tensor);
    if (i > 0) CHECK(strcmp(luna_safetensors_at(file, i - 1)->name, tensor->name) < 0);
    touch(tensor->data, tensor->bytes);
}

static void check_file(luna_blob whole)
{
    luna_safetensors *file = NULL;
    const luna_err err = luna_safetensors_parse(whole.data, whole.len, "the file", &file);
    if (err != LUNA_OK) {
        CHECK(!file && err == LUNA_BAD_REQUEST);
        fuzz_check_error(err);
        return;
    }
    for (size_t i = 0; i < luna_safetensors_count(file); i++)
        check_tensor(file, i, whole);
    CHECK(!luna_safetensors_find(file, "\xff never there"));
    static const char *const keys[] = {"prompt", "workflow", "a"};
    for (size_t i = 0; i < 3; i++) {
        size_t len = 0;
        const char *value = luna_safetensors_metadata(file, keys[i], &len);
        if (value) CHECK(value[len] == '\0');
    }
    luna_safetensors_close(&file);
}

static void check_latents(luna_blob whole, const char *tensor)
{
    luna_latent_file latents = {0};
    const luna_err err =
        luna_latent_file_parse(whole.data, whole.len, "the file", tensor, &latents);
    if (err != LUNA_OK) {
        CHECK(err == LUNA_BAD_REQUEST || err == LUNA_NOT_FOUND ||
              err == LUNA_UNSUPPORTED);
        fuzz_check_error(err);
        return;
    }
    const luna_tensor *used = &latents.tensor;
    CHECK(luna_dtype_is_float(used->dtype));
    CHECK(used->bytes == used->count * luna_dtype_size(used->dtype));
    touch(used->data, used->bytes);
    float *values = malloc(used->count * sizeof *values + 1);
    CHECK(values);
    CHECK(luna_dtype_to_float(used->dtype, used->data, used->count, values) == LUNA_OK);
    free(values);
    luna_latent_file_close(&latents);
}

//  Either the bytes as they are, or a header whose length is right before a body.
static luna_blob whole_file(fuzz_bytes *from)
{
    const uint64_t way = fuzz_uint(from, 1);
    const luna_blob rest = fuzz_rest(from);
    if (way % 4 == 0 || !rest.data)
        return (luna_blob){fuzz_copy(rest.data, rest.len), rest.len};
    const size_t body = (size_t)(way / 4);
    uint8_t *file = calloc(8 + rest.len + body, 1);
    CHECK(file);
    for (size_t i = 0; i < 8; i++) file[i] = (uint8_t)(rest.len >> (8 * i));
    memcpy(file + 8, rest.data, rest.len);
    memset(file + 8 + rest.len, 0x3c, body);
    return (luna_blob){file, 8 + rest.len + body};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    const luna_blob whole = whole_file(&from);
    check_file(whole);
    check_latents(whole, NULL);
    check_latents(whole, "a");
    free((void *)(uintptr_t)whole.data);
    return 0;
}
