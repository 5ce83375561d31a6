//  From a work message to files on disk, with the real engine, encoder and sink.

#include "kit.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <vips/vips.h>

#include "common/file.h"
#include "common/latent_file.h"
#include "decoder/image/encode.h"
#include "decoder/image/png_chunks.h"
#include "decoder/sink/files.h"
#include "decoder/sink/sha256.h"
#include "decoder/worker/pipeline.h"

#define OUT          "out"
#define CHANNELS     32
#define CORNER       6  //  latents a side
#define CORNER_BYTES (CHANNELS * CORNER * CORNER * sizeof(uint16_t))
#define SEED         "{\"3\":{\"inputs\":{\"seed\":18446744073709551615}}}"
#define GRAPH        "{\"nodes\":[]}"

typedef struct rig {
    luna_registry *registry;
    luna_models *models;
    luna_attempts *attempts;
    luna_sink *sink;
    luna_pipeline *pipeline;
    luna_latent_file latents;
    uint16_t *corner;  //  of the cat's latents: [1, C, CORNER, CORNER]
    luna_msg_input inputs[LUNA_MAX_INPUTS];
    luna_msg_job job;
    char out[4096];
    char here[2048];
    size_t refuse_after;  //  test hook of the sink: steps that succeed
    size_t steps;
    pthread_mutex_t lock;  //  of the gate, at which loads are held
    pthread_cond_t news;
    pthread_t latest;  //  thread that made a step
    bool closed;       //  for all but `passes`
    pthread_t passes;
} rig;

static int maybe_full(void *arg, const char *step)
{
    rig *self = arg;
    (void)step;
    return self->refuse_after && ++self->steps > self->refuse_after ? ENOSPC : 0;
}

static void open_sink(rig *self)
{
    const char *const roots[] = {self->out};
    const luna_files_options options = {
        .roots = roots, .count = 1, .before = maybe_full, .arg = self};
    assert_int_equal(luna_files_open(&options, &self->sink), LUNA_OK);
}

static void tick(void *context)
{
    rig *self = context;
    luna_attempts_tick(self->attempts);
    pthread_mutex_lock(&self->lock);
    self->latest = pthread_self();
    while (self->closed && !pthread_equal(self->passes, pthread_self()))
        pthread_cond_wait(&self->news, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

static void wake(void *context)
{
    const rig *self = context;
    luna_attempts_wake(self->attempts);
}

static void start(rig *self)
{
    assert_int_equal(luna_attempts_new(&self->attempts), LUNA_OK);
    const luna_models_options models = {.device = "cpu",
                                        .threads = 1,
                                        .count_max = 2,
                                        .bytes_max = UINT64_MAX,
                                        .step = tick,
                                        .loaded = wake,
                                        .context = self};
    assert_int_equal(luna_models_new(&models, &self->models), LUNA_OK);
    const luna_pipeline_options options = {.attempts = self->attempts,
                                           .registry = self->registry,
                                           .models = self->models,
                                           .sink = self->sink,
                                           .encode_threads = 2,
                                           .pixels_max = 1 << 20};
    assert_int_equal(luna_pipeline_start(&options, &self->pipeline), LUNA_OK);
}

static void stop(rig *self)
{
    luna_attempts_stop(self->attempts);
    luna_pipeline_stop(&self->pipeline);
    luna_models_free(&self->models);
    luna_attempts_free(&self->attempts);
}

//  Its upper left corner: small enough for a slow machine under a sanitizer.
static void cut_corner(rig *self)
{
    const luna_tensor *cat = &self->latents.tensor;
    const uint16_t *from = cat->data;
    const size_t height = cat->shape[2], width = cat->shape[3];
    self->corner = malloc(CORNER_BYTES);
    assert_non_null(self->corner);
    assert_int_equal(cat->shape[1], CHANNELS);
    for (size_t c = 0; c < CHANNELS; c++)
        for (size_t y = 0; y < CORNER; y++)
            memcpy(self->corner + (c * CORNER + y) * CORNER,
                   from + (c * height + y) * width, CORNER * sizeof *from);
}

//  A job of the corner: one input of one picture, PNG.
static void make_job(rig *self)
{
    char path[4096];
    assert_int_equal(
        luna_latent_file_open(data_path("chelsea.latent", path), &self->latents),
        LUNA_OK);
    cut_corner(self);
    for (size_t i = 0; i < LUNA_MAX_INPUTS; i++) {
        luna_msg_input *input = &self->inputs[i];
        *input = luna_msg_input_default();
        input->format = TEXT("png");
        input->affix = TEXT("CAT");
        input->png_compression = 1;
        input->dtype = TEXT("float16");
        input->shape = (luna_dims){{1, CHANNELS, CORNER, CORNER}, 4};
        input->latent = (luna_blob){self->corner, CORNER_BYTES};
    }
    self->job = luna_msg_job_default();
    self->job.id = id_of(1);
    self->job.client = id_of(7);
    self->job.created_ms = 1763930096789;
    self->job.vae = TEXT("auto");
    self->job.filename = TEXT("%model_name%");
    self->job.model_name = TEXT("dev.safetensors");
    self->job.prompt = (luna_blob){SEED, strlen(SEED)};
    self->job.workflow = (luna_blob){GRAPH, strlen(GRAPH)};
    self->job.inputs.items = self->inputs;
    self->job.inputs.count = 1;
}

static int setup(void **state)
{
    rig *self = calloc(1, sizeof *self);
    char path[4096];
    assert_non_null(self);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->news, NULL);
    assert_non_null(getcwd(self->here, sizeof self->here));
    snprintf(self->out, sizeof self->out, "%s/%s", self->here, OUT);
    self->registry = luna_registry_new();
    assert_int_equal(luna_registry_set(self->registry, "taef2", "path",
                                       data_path("taef2_decoder.safetensors", path)),
                     LUNA_OK);
    assert_int_equal(luna_registry_roots(self->registry, ""), LUNA_OK);
    open_sink(self);
    make_job(self);
    start(self);
    *state = self;
    return 0;
}

static int teardown(void **state)
{
    rig *self = *state;
    stop(self);
    luna_sink_close(&self->sink);
    luna_registry_free(&self->registry);
    luna_latent_file_close(&self->latents);
    free(self->corner);
    pthread_mutex_destroy(&self->lock);
    pthread_cond_destroy(&self->news);
    free(self);
    remove_tree(OUT);
    return 0;
}

static void add(rig *self, luna_work *work)
{
    assert_int_equal(luna_attempts_add(self->attempts, &work, luna_now_ms()), LUNA_OK);
}

static report run_work(rig *self, luna_work *work)
{
    add(self, work);
    return wait_for_end(self->attempts, NULL);
}

static report run(rig *self)
{
    return run_work(self, work_of(&self->job, 1));
}

static void expect_failed(rig *self, const char *error, const char *says, bool retry)
{
    report told = run(self);
    assert_int_equal(told.type, LUNA_MSG_FAILED);
    assert_true(luna_text_is(told.failed.error, error));
    char detail[1024];
    luna_text_copy(told.failed.detail, detail, sizeof detail);
    assert_non_null(strstr(detail, says));
    assert_int_equal(told.failed.retry, retry);
    close_report(&told);
}

//  The pictures below `dir`, hidden names left out.
static size_t count_pictures(const char *dir)
{
    char *const paths[] = {(char *)(uintptr_t)dir, NULL};
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *at;
    size_t count = 0;
    while ((at = fts_read(tree)))
        count += at->fts_info == FTS_F && strstr(at->fts_name, ".png") != NULL &&
                 at->fts_name[0] != '.';
    fts_close(tree);
    return count;
}

//  The bytes the engine gives for the first picture of the job, to compare with.
static uint8_t *engine_pixels(const rig *self, luna_pixels_rule rule,
                              luna_vae_shape *shape)
{
    luna_vae *vae = NULL;
    luna_vae_options options = luna_vae_options_default();
    luna_vae_latents latents;
    char path[4096];
    options.threads = 1;
    assert_int_equal(
        luna_vae_open(data_path("taef2_decoder.safetensors", path), &options, &vae),
        LUNA_OK);
    const luna_msg_input *input = &self->inputs[0];
    const size_t dims[] = {1, CHANNELS, (size_t)input->shape.at[2],
                           (size_t)input->shape.at[3]};
    assert_int_equal(
        luna_vae_latents_from(input->latent.data, LUNA_DTYPE_F16, dims, 4, &latents),
        LUNA_OK);
    assert_int_equal(luna_vae_output_shape(vae, &latents, shape), LUNA_OK);
    const size_t bytes = luna_pixels_bytes(shape, 1, LUNA_PIXELS_U8);
    uint8_t *pixels = malloc(bytes);
    const luna_vae_target target = {pixels, bytes, LUNA_PIXELS_U8, rule};
    assert_int_equal(luna_vae_decode(vae, &latents, 0, 1, &target), LUNA_OK);
    luna_vae_close(&vae);
    return pixels;
}

static void expect_pixels(const rig *self, const char *path, luna_pixels_rule rule)
{
    luna_vae_shape shape;
    uint8_t *wanted = engine_pixels(self, rule, &shape);
    VipsImage *image = vips_image_new_from_file(path, NULL);
    assert_non_null(image);
    assert_int_equal(vips_image_get_width(image), shape.width);
    assert_int_equal(vips_image_get_height(image), shape.height);
    assert_int_equal(vips_image_get_bands(image), 3);
    size_t len = 0;
    void *pixels = vips_image_write_to_memory(image, &len);
    assert_int_equal(len, shape.width * shape.height * 3);
    assert_memory_equal(pixels, wanted, len);
    g_free(pixels);
    g_object_unref(image);
    free(wanted);
}

//  Mean error against the picture decoded in float64 below one step of 255.
static void expect_the_photograph(const char *path)
{
    luna_safetensors *file = NULL;
    char reference[4096];
    size_t len = 0;
    assert_int_equal(
        luna_safetensors_open(data_path("taef2_reference.safetensors", reference), &file),
        LUNA_OK);
    const luna_tensor *tensor = luna_safetensors_find(file, "chelsea.pixels");
    float *wanted = malloc(tensor->count * sizeof *wanted);
    assert_int_equal(
        luna_dtype_to_float(tensor->dtype, tensor->data, tensor->count, wanted), LUNA_OK);
    VipsImage *image = vips_image_new_from_file(path, NULL);
    uint8_t *pixels = vips_image_write_to_memory(image, &len);
    assert_int_equal(len, tensor->count);
    const size_t plane = len / 3;
    double sum = 0;
    for (size_t i = 0; i < len; i++) {
        const double apart = pixels[i] - 255.0 * (double)wanted[i % 3 * plane + i / 3];
        sum += apart < 0 ? -apart : apart;
    }
    assert_true(sum / (double)len < 1.0);
    g_free(pixels);
    g_object_unref(image);
    free(wanted);
    luna_safetensors_close(&file);
}

static void expect_text(const char *path, const char *keyword, const char *text)
{
    char *file = NULL;
    const char *found = NULL;
    size_t len = 0, found_len = 0;
    assert_int_equal(luna_file_read(path, 1 << 26, &file, &len), LUNA_OK);
    const luna_err err = luna_png_find_text(file, len, keyword, &found, &found_len);
    if (text) {
        assert_int_equal(err, LUNA_OK);
        assert_int_equal(found_len, strlen(text));
        assert_memory_equal(found, text, found_len);
    } else {
        assert_int_equal(err, LUNA_NOT_FOUND);
    }
    free(file);
}

static void copy_path(const luna_msg_image *image, char path[4096])
{
    luna_text_copy(image->path, path, 4096);
}

//  Name, path and what sha256sum says of the file.
static void expect_vae_file(const luna_msg_done *done)
{
    char path[4096], sha256[LUNA_SINK_SHA256_BYTES], *file = NULL;
    size_t len = 0;
    data_path("taef2_decoder.safetensors", path);
    assert_int_equal(luna_file_read(path, 1 << 26, &file, &len), LUNA_OK);
    assert_int_equal(luna_sha256(file, len, sha256), LUNA_OK);
    assert_true(luna_text_is(done->vae, "taef2"));
    assert_true(luna_text_is(done->vae_path, path));
    assert_true(luna_text_is(done->vae_sha256, sha256));
    free(file);
}

static void a_cat_is_decoded_and_saved(void **state)
{
    rig *self = *state;
    char path[4096], wanted[8192];
    const luna_tensor *cat = &self->latents.tensor;
    for (size_t i = 0; i < 4; i++) self->inputs[0].shape.at[i] = cat->shape[i];
    self->inputs[0].latent = (luna_blob){cat->data, cat->bytes};
    report told = run(self);
    assert_int_equal(told.type, LUNA_MSG_DONE);
    expect_vae_file(&told.done);
    assert_int_equal(told.done.images.count, 1);
    const luna_msg_image *image = &told.done.images.items[0];
    assert_int_equal(image->width, 448);
    assert_int_equal(image->height, 296);
    assert_true(image->decode_ms > 0 && image->encode_ms > 0 && image->write_ms > 0);
    //  Many steps of one decode, each of them a sign of life.
    assert_true(luna_attempts_count(self->attempts).ticks > 20);
    copy_path(image, path);
    snprintf(wanted, sizeof wanted, "%s/CAT/dev_CAT.png", self->out);
    assert_string_equal(path, wanted);
    expect_pixels(self, path, LUNA_PIXELS_TRUNCATE);
    expect_the_photograph(path);
    expect_text(path, "prompt", SEED);
    expect_text(path, "workflow", GRAPH);
    expect_text(path, "image_type", "CAT");
    expect_text(path, "batch_index", "0");
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(image->bytes, info.st_size);
    close_report(&told);
}

static void rounding_and_no_metadata_on_request(void **state)
{
    rig *self = *state;
    char path[4096];
    self->job.round_pixels = true;
    self->job.embed_workflow = false;
    report told = run(self);
    assert_int_equal(told.type, LUNA_MSG_DONE);
    copy_path(&told.done.images.items[0], path);
    expect_pixels(self, path, LUNA_PIXELS_ROUND);
    expect_text(path, "prompt", NULL);
    expect_text(path, "workflow", NULL);
    expect_text(path, "save_timestamp", NULL);
    close_report(&told);
}

//  Two inputs, one of two pictures: names, order and batch_index.
static void every_input_and_picture(void **state)
{
    rig *self = *state;
    char *twice = malloc(2 * CORNER_BYTES);
    size_t progressed = 0;
    memcpy(twice, self->corner, CORNER_BYTES);
    memcpy(twice + CORNER_BYTES, self->corner, CORNER_BYTES);
    self->inputs[0].shape.at[0] = 2;
    self->inputs[0].latent = (luna_blob){twice, 2 * CORNER_BYTES};
    self->inputs[1].affix = TEXT("OTHER");
    self->inputs[1].subdir = false;
    self->job.inputs.count = 2;
    add(self, work_of(&self->job, 1));
    report told = wait_for_end(self->attempts, &progressed);
    assert_int_equal(told.type, LUNA_MSG_DONE);
    assert_int_equal(told.done.images.count, 3);
    assert_int_equal(progressed, 3);
    unsigned seen = 0;
    for (size_t i = 0; i < 3; i++) {
        const luna_msg_image *image = &told.done.images.items[i];
        char path[4096], text[8] = {(char)('0' + image->index)};
        seen |= 1u << (2 * image->input + image->index);
        copy_path(image, path);
        expect_pixels(self, path, LUNA_PIXELS_TRUNCATE);
        expect_text(path, "batch_index", text);
    }
    assert_int_equal(seen, 7);
    assert_int_equal(count_pictures(OUT), 3);
    close_report(&told);
    free(twice);
}

static void a_mapped_payload(void **state)
{
    rig *self = *state;
    char path[4096];
    size_t len = 0;
    void *payload = payload_of(&self->job, &len);
    snprintf(path, sizeof path, "%s/payload", self->here);
    FILE *file = fopen(path, "w");
    assert_int_equal(fwrite(payload, 1, len, file), len);
    fclose(file);
    luna_msg_work fields = work_fields(self->job.id, 1);
    fields.payload_path = TEXT(path);
    report told = run_work(self, open_work(&fields));
    assert_int_equal(told.type, LUNA_MSG_DONE);
    assert_int_equal(told.done.images.count, 1);
    close_report(&told);
    remove("payload");
    free(payload);
}

//  A second attempt, of a fresh process: same record, no second file, no decode.
static void what_is_there_is_not_redone(void **state)
{
    rig *self = *state;
    report first = run(self);
    assert_int_equal(first.type, LUNA_MSG_DONE);
    stop(self);
    start(self);
    report again = run_work(self, work_of(&self->job, 2));
    assert_int_equal(again.type, LUNA_MSG_DONE);
    const luna_msg_image *a = &first.done.images.items[0],
                         *b = &again.done.images.items[0];
    assert_int_equal(again.done.images.count, 1);
    assert_int_equal(a->path.len, b->path.len);
    assert_memory_equal(a->path.data, b->path.data, a->path.len);
    assert_memory_equal(a->sha256.data, b->sha256.data, 64);
    assert_true(b->decode_ms < 1e-9);
    assert_int_equal(count_pictures(OUT), 1);
    close_report(&first);
    close_report(&again);
}

//  Two pictures, the broker has the first: only the second is made, even though this
//  host has never seen the first.
static void what_the_broker_has_is_not_redone(void **state)
{
    rig *self = *state;
    self->job.inputs.count = 2;
    const luna_msg_image_key done[] = {{0, 0}, {4, 9}, {0, 4000}};
    size_t len = 0;
    void *payload = payload_of(&self->job, &len);
    luna_msg_work fields = work_fields(self->job.id, 2);
    fields.payload_path = (luna_text){0};
    fields.payload = (luna_blob){payload, len};
    fields.done.items = done;
    fields.done.count = 3;
    report told = run_work(self, open_work(&fields));
    assert_int_equal(told.type, LUNA_MSG_DONE);
    assert_int_equal(told.done.images.count, 1);
    assert_int_equal(told.done.images.items[0].input, 1);
    assert_int_equal(count_pictures(OUT), 1);
    close_report(&told);
    free(payload);
}

static void a_full_disk_fails_the_attempt_and_the_next_goes_on(void **state)
{
    rig *self = *state;
    self->refuse_after = 1;
    report told = run(self);
    assert_int_equal(told.type, LUNA_MSG_FAILED);
    assert_true(luna_text_is(told.failed.error, "no_space"));
    assert_true(told.failed.retry);
    close_report(&told);
    assert_int_equal(count_pictures(OUT), 0);
    self->refuse_after = 0;
    told = run_work(self, work_of(&self->job, 2));
    assert_int_equal(told.type, LUNA_MSG_DONE);
    assert_int_equal(count_pictures(OUT), 1);
    close_report(&told);
}

static void bad_numbers_are_not_decoded(void **state)
{
    rig *self = *state;
    self->corner[100] = 0x7e00;  //  NaN
    expect_failed(self, "bad_latent", "NaN", false);
    assert_int_equal(count_pictures(OUT), 0);
}

static void what_is_not_offered_is_refused(void **state)
{
    rig *self = *state;
    self->job.save_mode = TEXT("database_store");
    expect_failed(self, "unsupported", "database_store", false);
}

static void check_told(const report *told, const char *end, const char *note)
{
    char path[4096], shown[1024];
    assert_int_equal(told->type, LUNA_MSG_DONE);
    assert_int_equal(told->done.images.count, 1);
    copy_path(&told->done.images.items[0], path);
    luna_text_copy(told->done.images.items[0].note, shown, sizeof shown);
    assert_true(strlen(path) > strlen(end));
    assert_string_equal(path + strlen(path) - strlen(end), end);
    if (!strstr(shown, note)) fail_msg("\"%s\" lacks \"%s\"", shown, note);
    assert_true(note[0] || !shown[0]);
}

//  Its formats have their endings, and the file is one of that kind.
static void each_format(void **state)
{
    rig *self = *state;
    static const struct {
        const char *format, *end, *magic;
        bool lossless;
    } rows[] = {{"png", "/dev_CAT.png", "\x89PNG", false},
                {"webp", "/dev_CAT.webp", "RIFF", false},
                {"webp", "/dev_CAT_00001.webp", "RIFF", true},
                {"jpeg", "/dev_CAT.jpg", "\xFF\xD8\xFF\xE0", false},
                {"avif", "/dev_CAT.avif", "\0\0\0\x1C", false},
                {"jxl", "/dev_CAT.jxl", "\0\0\0\x0C", true}};
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[4096], *file;
        size_t len;
        luna_format format;
        const luna_text word = luna_text_of(rows[i].format);
        assert_int_equal(luna_format_parse(word.data, word.len, &format), LUNA_OK);
        if (luna_image_can(format) != LUNA_OK) continue;
        self->job.id = id_of((uint8_t)(i + 1));
        self->inputs[0].format = luna_text_of(rows[i].format);
        self->inputs[0].lossless_webp = rows[i].lossless;
        report told = run(self);
        check_told(&told, rows[i].end, "");
        copy_path(&told.done.images.items[0], path);
        if (i != 1 && i != 3 && i != 4) expect_pixels(self, path, LUNA_PIXELS_TRUNCATE);
        assert_int_equal(luna_file_read(path, 1 << 26, &file, &len), LUNA_OK);
        assert_memory_equal(file, rows[i].magic, 4);
        free(file);
        close_report(&told);
    }
}

//  The upper 8 of its 16 bits are the truncated picture.
static void sixteen_bits_are_the_decoders_own(void **state)
{
    rig *self = *state;
    char path[4096], deep_path[4096];
    size_t bytes, deep_bytes;
    report told = run(self);
    copy_path(&told.done.images.items[0], path);
    close_report(&told);
    self->job.id = id_of(2);
    self->inputs[0].png_bits = 16;
    told = run(self);
    check_told(&told, "/dev_CAT_00001.png", "");
    copy_path(&told.done.images.items[0], deep_path);
    close_report(&told);
    VipsImage *flat = vips_image_new_from_file(path, NULL);
    VipsImage *deep = vips_image_new_from_file(deep_path, NULL);
    uint8_t *a = vips_image_write_to_memory(flat, &bytes);
    uint16_t *b = vips_image_write_to_memory(deep, &deep_bytes);
    size_t between = 0;
    assert_int_equal(deep_bytes, 2 * bytes);
    for (size_t i = 0; i < bytes; i++) {
        assert_true(b[i] / 257 == a[i] || (b[i] + 1) / 257 == a[i]);
        between += b[i] % 257 != 0;
    }
    assert_true(between > bytes / 2);
    g_free(a);
    g_free(b);
    g_object_unref(flat);
    g_object_unref(deep);
}

//  What the gate rejects is kept in a folder of its own and told, also by an attempt
//  that finds it there; what it lets through is where it belongs.
static void the_gate_sorts_out(void **state)
{
    rig *self = *state;
    self->job.quality_gate = TEXT("both");
    self->job.min_quality = 0.01;
    report told = run(self);
    check_told(&told, OUT "/CAT/dev_CAT.png", "");
    close_report(&told);
    self->job.id = id_of(2);
    self->job.min_quality = 1.1;
    for (uint64_t attempt = 1; attempt <= 2; attempt++) {
        told = run_work(self, work_of(&self->job, attempt));
        check_told(&told, OUT "/_discarded/CAT/dev_CAT.png", "discarded: its variance");
        close_report(&told);
    }
}

//  A picture is never lost over its texts, and the sidecar has all of them.
static void a_jpeg_leaves_out_and_the_sidecar_keeps(void **state)
{
    rig *self = *state;
    char path[4096 + 8], *file, *large = malloc(200001);
    size_t len;
    memset(large, 'w', 200000);
    large[0] = '"';
    large[199999] = '"';
    large[200000] = '\0';
    self->job.workflow = (luna_blob){large, 200000};
    self->job.sidecar = true;
    self->inputs[0].format = TEXT("jpeg");
    report told = run(self);
    check_told(&told, "/dev_CAT.jpg", "left out, a JPEG ends at 64 KiB: workflow");
    copy_path(&told.done.images.items[0], path);
    strcat(path, ".json");
    assert_int_equal(luna_file_read(path, 1 << 26, &file, &len), LUNA_OK);
    assert_non_null(strstr(file, "\"prompt\": \"{\\\"3\\\""));
    assert_true(len > 200000);
    free(file);
    free(large);
    close_report(&told);
}

//  Nothing of it is decoded: the format is known not to take it.
static void a_picture_too_large_for_its_format_is_refused(void **state)
{
    rig *self = *state;
    const size_t values = CHANNELS * 2100;
    uint16_t *wide = calloc(values, sizeof *wide);
    self->inputs[0].shape = (luna_dims){{1, CHANNELS, 1, 2100}, 4};
    self->inputs[0].latent = (luna_blob){wide, values * sizeof *wide};
    self->inputs[0].format = TEXT("webp");
    expect_failed(self, "bad_request", "16383", false);
    free(wide);
}

static void paths_and_names_stay_inside(void **state)
{
    rig *self = *state;
    self->job.output_dir = TEXT("/etc");
    expect_failed(self, "forbidden", "/etc", false);
    self->job.output_dir = (luna_text){0};
    self->job.save_path = TEXT("../up");
    self->job.id = id_of(2);
    expect_failed(self, "forbidden", "..", false);
    self->job.save_path = (luna_text){0};
    self->job.vae = TEXT("../../etc/passwd");
    self->job.id = id_of(3);
    expect_failed(self, "forbidden", "passwd", false);
    self->job.vae = TEXT("flux");
    self->job.id = id_of(4);
    expect_failed(self, "unknown_vae", "taef2", false);
}

static void damaged_and_missing_payloads_are_told(void **state)
{
    rig *self = *state;
    size_t len = 0;
    uint8_t *payload = payload_of(&self->job, &len);
    luna_msg_work fields = work_fields(self->job.id, 1);
    fields.payload = (luna_blob){payload, len};
    payload[len - 1] ^= 1;
    report told = run_work(self, open_work(&fields));
    assert_int_equal(told.type, LUNA_MSG_FAILED);
    assert_true(luna_text_is(told.failed.error, "io"));
    close_report(&told);
    payload[len - 1] ^= 1;
    fields.id = id_of(2);
    told = run_work(self, open_work(&fields));
    assert_true(luna_text_is(told.failed.error, "protocol"));
    close_report(&told);
    fields.payload = (luna_blob){0};
    fields.id = id_of(3);
    told = run_work(self, open_work(&fields));
    assert_true(luna_text_is(told.failed.error, "io"));
    assert_true(told.failed.retry);  //  it may be readable elsewhere, or later
    close_report(&told);
    free(payload);
}

//  ---- a load in the background ------------------------------------------------------

//  A second VAE for the same latents, whose load is held at the gate from now on. The
//  latest step was the decode thread's: it may pass.
static void hold_loads(rig *self)
{
    char path[4096];
    report told = run(self);
    assert_int_equal(told.type, LUNA_MSG_DONE);
    close_report(&told);
    assert_int_equal(luna_registry_set(self->registry, "slow", "path",
                                       data_path("taef2_decoder.safetensors", path)),
                     LUNA_OK);
    assert_int_equal(luna_registry_set(self->registry, "slow", "latent_scale", "0.5"),
                     LUNA_OK);
    pthread_mutex_lock(&self->lock);
    self->passes = self->latest;
    self->closed = true;
    pthread_mutex_unlock(&self->lock);
}

static void open_gate(rig *self)
{
    pthread_mutex_lock(&self->lock);
    self->closed = false;
    pthread_cond_broadcast(&self->news);
    pthread_mutex_unlock(&self->lock);
}

static void add_job(rig *self, uint8_t id, const char *vae)
{
    self->job.id = id_of(id);
    self->job.vae = luna_text_of(vae);
    add(self, work_of(&self->job, 1));
}

static void expect_done(rig *self, uint8_t id, const char *vae)
{
    report told = wait_for_end(self->attempts, NULL);
    assert_int_equal(told.type, LUNA_MSG_DONE);
    assert_int_equal(told.done.id.byte[15], id);
    assert_true(luna_text_is(told.done.vae, vae));
    close_report(&told);
}

static void wait_parked(rig *self, size_t count)
{
    const int64_t end_ms = luna_now_ms() + DEADLINE_MS;
    while (luna_attempts_count(self->attempts).parked != count) {
        assert_true(luna_now_ms() < end_ms);
        usleep(1000);
    }
}

//  Older jobs for another VAE stand aside, and come in their order when it is loaded.
static void jobs_pass_those_whose_vae_is_loading(void **state)
{
    rig *self = *state;
    hold_loads(self);
    add_job(self, 2, "slow");
    add_job(self, 3, "slow");
    for (uint8_t id = 4; id < 8; id++) {
        add_job(self, id, "taef2");
        expect_done(self, id, "taef2");
    }
    assert_int_equal(luna_attempts_count(self->attempts).parked, 2);
    open_gate(self);
    expect_done(self, 2, "slow");
    expect_done(self, 3, "slow");
    assert_int_equal(luna_attempts_count(self->attempts).parked, 0);
}

static void a_job_is_cancelled_while_its_vae_loads(void **state)
{
    rig *self = *state;
    hold_loads(self);
    add_job(self, 2, "slow");
    wait_parked(self, 1);
    luna_attempts_cancel(self->attempts, &(luna_msg_job_key){id_of(2), 1}, luna_now_ms());
    wait_parked(self, 0);
    add_job(self, 3, "taef2");
    expect_done(self, 3, "taef2");
    assert_int_equal(luna_attempts_count(self->attempts).running, 0);
    open_gate(self);
    add_job(self, 4, "slow");
    expect_done(self, 4, "slow");
}

//  It is given back, not failed, and the threads do not wait for the rest of the load.
static void a_stop_while_a_vae_loads(void **state)
{
    rig *self = *state;
    luna_msg_job_key held[4];
    report told;
    hold_loads(self);
    add_job(self, 2, "slow");
    wait_parked(self, 1);
    luna_attempts_stop(self->attempts);
    luna_pipeline_stop(&self->pipeline);
    while (next_report(self->attempts, &told)) {
        assert_int_equal(told.type, LUNA_MSG_PROGRESS);
        close_report(&told);
    }
    assert_int_equal(luna_attempts_count(self->attempts).running, 0);
    const size_t count = luna_attempts_list(self->attempts, held, 4);
    assert_int_equal(held[count - 1].id.byte[15], 2);
    open_gate(self);
}

static void a_failed_load_fails_its_job_only(void **state)
{
    rig *self = *state;
    hold_loads(self);
    FILE *file = fopen("bad.safetensors", "w");
    fputs("no model", file);
    fclose(file);
    assert_int_equal(luna_registry_set(self->registry, "slow", "path", "bad.safetensors"),
                     LUNA_OK);
    add_job(self, 2, "slow");
    report told = wait_for_end(self->attempts, NULL);
    assert_int_equal(told.type, LUNA_MSG_FAILED);
    assert_true(luna_text_is(told.failed.error, "bad_model"));
    assert_false(told.failed.retry);
    close_report(&told);
    add_job(self, 3, "taef2");
    expect_done(self, 3, "taef2");
    remove("bad.safetensors");
}

static int start_images(void **state)
{
    (void)state;
    return luna_image_start() == LUNA_OK ? 0 : -1;
}

static int stop_images(void **state)
{
    (void)state;
    luna_image_stop();
    return 0;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_cat_is_decoded_and_saved),
        T(rounding_and_no_metadata_on_request),
        T(every_input_and_picture),
        T(a_mapped_payload),
        T(what_is_there_is_not_redone),
        T(what_the_broker_has_is_not_redone),
        T(a_full_disk_fails_the_attempt_and_the_next_goes_on),
        T(bad_numbers_are_not_decoded),
        T(what_is_not_offered_is_refused),
        T(each_format),
        T(sixteen_bits_are_the_decoders_own),
        T(the_gate_sorts_out),
        T(a_jpeg_leaves_out_and_the_sidecar_keeps),
        T(a_picture_too_large_for_its_format_is_refused),
        T(paths_and_names_stay_inside),
        T(damaged_and_missing_payloads_are_told),
        T(jobs_pass_those_whose_vae_is_loading),
        T(a_job_is_cancelled_while_its_vae_loads),
        T(a_stop_while_a_vae_loads),
        T(a_failed_load_fails_its_job_only)};
    return cmocka_run_group_tests(tests, start_images, stop_images);
}
