//  The host's side of a card: which one, its self-test, its memory when others take it,
//  and what is left after it failed. Through the engine and the plugin, as the programs
//  do.

#include "decoder/vae/memory_budget.h"
#include "decoder/vae/random_model.h"
#include "decoder/vae/selftest.h"
#include "decoder/vae/vae.h"
#include "gpu_test.h"

#include <sys/wait.h>
#include <unistd.h>

static const size_t mib = (size_t)1 << 20;

static void must(luna_err err)
{
    if (err != LUNA_OK) fail_msg("%s: %s", luna_err_name(err), luna_error_text());
}

static const luna_backend *first_card(luna_card *card)
{
    luna_card cards[LUNA_CARDS_MAX];
    const luna_backend *cuda = NULL;
    int index;
    size_t count = 0;
    must(luna_backend_find("cuda:0", &cuda, &index));
    must(cuda->cards(cards, LUNA_CARDS_MAX, &count));
    assert_true(count >= 1);
    *card = cards[0];
    return cuda;
}

//  ---- which card ---------------------------------------------------------------------

static void by_uuid(void **state)
{
    (void)state;
    luna_card card;
    const luna_backend *cuda = first_card(&card), *found = NULL;
    char device[80];
    int index = -1;
    printf("%s %s, %s\n", card.name, card.uuid, cuda->describe());
    assert_int_equal(strlen(card.uuid), 40);
    snprintf(device, sizeof device, "cuda:%s", card.uuid);
    must(luna_backend_find(device, &found, &index));
    assert_ptr_equal(found, cuda);
    assert_int_equal(index, 0);
    device[5 + 12] = '\0';  //  as nvidia-smi's users shorten it
    must(luna_backend_find(device, &found, &index));
}

static void not_there(void **state)
{
    (void)state;
    luna_card card;
    const luna_backend *found = NULL;
    int index;
    (void)first_card(&card);
    static const char *const wrong[] = {"cuda:99",
                                        "cuda:GPU-00000000-dead-beef-0000-000000000000"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(luna_backend_find(wrong[i], &found, &index), LUNA_UNAVAILABLE);
        printf("%s\n", luna_error_text());
        assert_non_null(strstr(luna_error_text(), card.uuid));
    }
}

//  What nvidia-smi says, where there is one.
static void the_uuid_is_nvidia_smis(void **state)
{
    (void)state;
    luna_card card;
    char line[128] = "", wanted[64] = "";
    (void)first_card(&card);
    FILE *smi =
        popen("nvidia-smi --query-gpu=uuid --format=csv,noheader 2>/dev/null", "r");
    bool any = false, same = false;
    while (smi && fgets(line, sizeof line, smi)) {
        line[strcspn(line, "\r\n")] = '\0';
        snprintf(wanted, sizeof wanted, "%.60s", line);
        if (strncmp(wanted, "GPU-", 4) != 0) continue;
        any = true;
        same = same || strcmp(wanted, card.uuid) == 0;
    }
    if (smi) (void)pclose(smi);
    if (any && !same) fail_msg("nvidia-smi lists no %s (last: %s)", card.uuid, wanted);
}

//  ---- the self-test ------------------------------------------------------------------

static void the_self_test(void **state)
{
    (void)state;
    luna_selftest_result r;
    for (int round = 0; round < 2; round++)
        for (luna_vae_precision p = LUNA_VAE_PRECISION_AUTO; p <= LUNA_VAE_PRECISION_BF16;
             p++) {
            must(luna_selftest("cuda:0", p, &r));
            printf(
                "self-test %s: %.1f dB (%.0f needed), open %.0f ms, first %.0f ms, "
                "second %.1f ms\n",
                luna_vae_precision_name(p), r.distance_db, r.needed_db, r.open_ms,
                r.decode_ms, r.again_ms);
        }
}

//  ---- memory -------------------------------------------------------------------------

typedef struct rig {
    void *image;
    luna_vae *vae;
    float *latents;
    size_t side;
} rig;

static rig open_rig(size_t side)
{
    rig r = {.side = side};
    size_t len = 0;
    luna_vae_options options = luna_vae_options_default();
    options.device = "cuda:0";
    must(luna_random_model("sd", &r.image, &len));
    must(luna_vae_open_bytes(r.image, len, "random", &options, &r.vae));
    r.latents = random_floats(3 * 4 * side * side, 2.0F, 0.0F);
    return r;
}

static void close_rig(rig *r)
{
    luna_vae_close(&r->vae);
    free(r->image);
    free(r->latents);
}

//  Three pictures; *bytes is malloc'd, also after an error.
static luna_err decode_three(const rig *r, uint8_t **bytes, size_t *count)
{
    const luna_vae_latents latents = {.data = r->latents,
                                      .dtype = LUNA_DTYPE_F32,
                                      .count = 3,
                                      .channels = 4,
                                      .height = r->side,
                                      .width = r->side};
    *count = 3 * 3 * 64 * r->side * r->side;
    *bytes = calloc(*count, 1);
    assert_non_null(*bytes);
    const luna_vae_target target = {*bytes, *count, LUNA_PIXELS_U8, LUNA_PIXELS_TRUNCATE};
    return luna_vae_decode(r->vae, &latents, 0, 3, &target);
}

static void the_limit_is_what_is_free(void **state)
{
    (void)state;
    luna_card card;
    luna_backend_memory memory;
    const luna_backend *cuda = first_card(&card);
    must(cuda->memory(0, &memory));
    rig r = open_rig(8);
    const size_t limit = luna_vae_memory_limit(r.vae);
    printf("free %.0f of %.0f MiB, limit %.0f MiB\n", (double)memory.free_bytes / 1048576,
           (double)memory.total_bytes / 1048576, (double)limit / 1048576);
    assert_true(limit > 0 && limit < memory.free_bytes);
    const size_t about = luna_memory_budget(memory.free_bytes, memory.total_bytes);
    assert_true(limit <= about && limit + 256 * mib >= about);
    close_rig(&r);
}

//  Somebody else on the card: takes everything but about so much.
typedef struct hog {
    void *part[4096];
    size_t count;
} hog;

static void hog_take(hog *h, size_t part_bytes)
{
    while (h->count < 4096 && cudaMalloc(&h->part[h->count], part_bytes) == cudaSuccess)
        h->count++;
    (void)cudaGetLastError();
}

static hog *hog_all_but(size_t bytes)
{
    hog *h = calloc(1, sizeof *h);
    void *left = NULL;
    assert_non_null(h);
    if (bytes) ok(cudaMalloc(&left, bytes));
    hog_take(h, 256 * mib);
    hog_take(h, 16 * mib);
    hog_take(h, 2 * mib);
    if (left) ok(cudaFree(left));
    return h;
}

static void hog_free(hog *h)
{
    for (size_t i = 0; i < h->count; i++) (void)cudaFree(h->part[i]);
    free(h);
}

//  What the plan needs was taken before; less and less of what the pictures' way out
//  needs is left, down to none. A decode either gives the same pixels or says the
//  numbers.
static void others_take_the_memory(void **state)
{
    (void)state;
    static const size_t left_mib[] = {64, 8, 4, 0};
    uint8_t *wanted = NULL, *is = NULL;
    size_t count = 0;
    rig r = open_rig(128);
    must(decode_three(&r, &wanted, &count));
    for (size_t i = 0; i < sizeof left_mib / sizeof left_mib[0]; i++) {
        luna_vae_trim(r.vae);
        const rig one = {.vae = r.vae, .latents = r.latents, .side = 8};
        must(decode_three(&one, &is, &count));
        free(is);
        hog *h = hog_all_but(left_mib[i] * mib);
        const luna_err err = decode_three(&r, &is, &count);
        printf("%zu MiB left: %s\n", left_mib[i],
               err == LUNA_OK ? "decoded" : luna_error_text());
        if (err == LUNA_OK)
            assert_memory_equal(is, wanted, count);
        else
            assert_int_equal(err, LUNA_NO_MEMORY);
        hog_free(h);
        free(is);
        //  And when they give it back, everything is as before.
        must(decode_three(&r, &is, &count));
        assert_memory_equal(is, wanted, count);
        free(is);
    }
    free(wanted);
    close_rig(&r);
}

//  Room for the plan and one picture's way out, but hardly for two.
static void one_picture_at_a_time(void **state)
{
    (void)state;
    uint8_t *wanted = NULL, *is = NULL;
    size_t count = 0;
    rig r = open_rig(64);
    must(decode_three(&r, &wanted, &count));
    luna_vae_trim(r.vae);
    luna_vae_cost cost;
    const luna_vae_latents latents = {.data = r.latents,
                                      .dtype = LUNA_DTYPE_F32,
                                      .count = 3,
                                      .channels = 4,
                                      .height = r.side,
                                      .width = r.side};
    must(luna_vae_prepare(r.vae, &latents, &cost));
    hog *h = hog_all_but(2 * mib);
    const luna_err err = decode_three(&r, &is, &count);
    printf("a plan and 2 MiB: %s\n", err == LUNA_OK ? "decoded" : luna_error_text());
    if (err == LUNA_OK)
        assert_memory_equal(is, wanted, count);
    else
        assert_int_equal(err, LUNA_NO_MEMORY);
    hog_free(h);
    free(is);
    free(wanted);
    close_rig(&r);
}

//  ---- errors ---------------------------------------------------------------------------

//  What a process survives, what another build or driver would cure, and what ends it.
static void errors_by_kind(void **state)
{
    (void)state;
    assert_int_equal(gpu_check(cudaSuccess, "a test"), LUNA_OK);
    assert_int_equal(gpu_check(cudaErrorMemoryAllocation, "a test"), LUNA_NO_MEMORY);
    assert_non_null(strstr(luna_error_text(), "MiB are free"));
    assert_int_equal(gpu_check_dnn(CUDNN_STATUS_ALLOC_FAILED, "a test"), LUNA_NO_MEMORY);
    assert_int_equal(gpu_check_blas(CUBLAS_STATUS_ALLOC_FAILED, "a test"),
                     LUNA_NO_MEMORY);
    static const cudaError_t unfit[] = {cudaErrorNoKernelImageForDevice,
                                        cudaErrorInsufficientDriver,
                                        cudaErrorUnsupportedPtxVersion};
    for (int i = 0; i < 3; i++)
        assert_int_equal(gpu_check(unfit[i], "a test"), LUNA_UNAVAILABLE);
    static const cudaError_t lasting[] = {cudaErrorIllegalAddress, cudaErrorLaunchTimeout,
                                          cudaErrorECCUncorrectable,
                                          cudaErrorHardwareStackError};
    for (int i = 0; i < 4; i++)
        assert_int_equal(gpu_check(lasting[i], "a test"), LUNA_DEVICE);
    assert_int_equal(gpu_check_dnn(CUDNN_STATUS_EXECUTION_FAILED, "a test"), LUNA_DEVICE);
}

//  ---- a fault ------------------------------------------------------------------------

//  In a process of its own: after a fault its context is of no more use.
static int fault(void)
{
    uint8_t *bytes = NULL;
    size_t count = 0;
    rig r = open_rig(8);
    must(decode_three(&r, &bytes, &count));
    (void)gpu_fill(GPU_FP32, (void *)(uintptr_t)0x10, 1024, NULL);
    const luna_err err = decode_three(&r, &bytes, &count);
    printf("after a fault: %s: %s\n", luna_err_name(err), luna_error_text());
    luna_vae_close(&r.vae);
    luna_vae *again = NULL;
    luna_vae_options options = luna_vae_options_default();
    options.device = "cuda:0";
    void *image = NULL;
    size_t len = 0;
    must(luna_random_model("taesd", &image, &len));
    options.latent_scale = 1.0F;
    const luna_err opened = luna_vae_open_bytes(image, len, "taesd", &options, &again);
    printf("another model then: %s: %s\n", luna_err_name(opened), luna_error_text());
    //  The worker takes both for a failed device.
    return err == LUNA_DEVICE && (opened == LUNA_DEVICE || opened == LUNA_UNAVAILABLE)
               ? 0
               : 1;
}

static void a_fault_is_a_failed_device(void **state)
{
    (void)state;
    int status = -1;
    fflush(stdout);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "test_host", "--fault", (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_uuid),
        cmocka_unit_test(not_there),
        cmocka_unit_test(the_uuid_is_nvidia_smis),
        cmocka_unit_test(the_self_test),
        cmocka_unit_test(the_limit_is_what_is_free),
        cmocka_unit_test(others_take_the_memory),
        cmocka_unit_test(one_picture_at_a_time),
        cmocka_unit_test(errors_by_kind),
        cmocka_unit_test(a_fault_is_a_failed_device),
    };
    fresh_seed();
    if (argc > 1 && strcmp(argv[1], "--fault") == 0) return fault();
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
