//  What a device on trial runs: the self-test's model as steps, with every kind of kernel
//  among them. (That its pixels are right: test_host.c.)

#include "decoder/vae/family.h"
#include "decoder/vae/random_model.h"
#include "decoder/vae/selftest.h"
#include "gpu_test.h"

typedef struct trial {
    void *image;
    luna_model model;
    luna_shape shapes[LUNA_GRAPH_MAX];
    int8_t exponents[LUNA_GRAPH_MAX];
    gpu_device device;
    gpu_lane lane;
    gpu_program *program;
} trial;

static void must(luna_err err)
{
    if (err != LUNA_OK) fail_msg("%s: %s", luna_err_name(err), luna_error_text());
}

static trial *new_trial(gpu_type type)
{
    trial *t = calloc(1, sizeof *t);
    size_t len = 0;
    assert_non_null(t);
    must(luna_random_model(LUNA_RANDOM_TINY, &t->image, &len));
    must(luna_safetensors_parse(t->image, len, "tiny",
                                (luna_safetensors **)(uintptr_t)&t->model.file));
    must(luna_model_build(&t->model));
    must(gpu_device_open(0, &t->device));
    gpu_device_set_trial(&t->device);
    t->lane =
        (gpu_lane){.device = &t->device, .type = type, .weights = &t->model.weights};
    must(luna_graph_infer(&t->model.plain, LUNA_SELFTEST_HEIGHT, LUNA_SELFTEST_WIDTH,
                          t->shapes));
    must(gpu_program_build(&t->lane, &t->model.plain, t->shapes, t->exponents, false,
                           &t->program));
    return t;
}

static void free_trial(trial *t)
{
    gpu_program_free(t->program);
    gpu_lane_free(&t->lane);
    gpu_device_close(&t->device);
    luna_safetensors_close((luna_safetensors **)(uintptr_t)&t->model.file);
    free(t->image);
    free(t);
}

//  ---- kinds of steps -----------------------------------------------------------------

typedef bool step_is(const gpu_step *step);

static bool is_fused(const gpu_step *s)
{
    return s->kind == GPU_STEP_CONV_FUSED;
}

static bool is_fused_with_norm(const gpu_step *s)
{
    return is_fused(s) && s->pairs != LUNA_NONE;
}

static bool is_fused_with_residual(const gpu_step *s)
{
    return is_fused(s) && s->z != LUNA_NONE;
}

static bool is_fused_with_shortcut(const gpu_step *s)
{
    return is_fused(s) && s->beside > 0;
}

static bool is_fused_with_upsample(const gpu_step *s)
{
    return is_fused(s) && s->parts_of.folded;
}

static bool is_fused_of_several_tiles(const gpu_step *s)
{
    return is_fused(s) && s->from.width > GPU_PART_SIDE;
}

static bool is_norm_of_parts(const gpu_step *s)
{
    return s->kind == GPU_STEP_NORM && s->parts != LUNA_NONE;
}

static bool is_norm_of_values(const gpu_step *s)
{
    return s->kind == GPU_STEP_NORM && s->parts == LUNA_NONE;
}

//  By cuDNN or, in fp32, by ours.
static bool is_conv(const gpu_step *s)
{
    return (s->kind == GPU_STEP_CONV || s->kind == GPU_STEP_CONV_PLAIN) && s->kernel == 3;
}

static bool is_narrow(const gpu_step *s)
{
    return s->kind == GPU_STEP_CONV_NARROW;
}

static bool is_last(const gpu_step *s)
{
    return s->kind == GPU_STEP_CONV_LAST;
}

static bool is_attention_fused(const gpu_step *s)
{
    return s->kind == GPU_STEP_ATTENTION_FUSED;
}

static bool is_attention(const gpu_step *s)
{
    return s->kind == GPU_STEP_ATTENTION || is_attention_fused(s);
}

static bool any(const trial *t, step_is *is)
{
    for (size_t i = 0; i < t->program->step_count; i++)
        if (is(&t->program->steps[i])) return true;
    return false;
}

#define EXPECT_ANY(trial, is) \
    if (!any(trial, is)) fail_msg("no step " #is)

//  ---- tests --------------------------------------------------------------------------

static void every_card(void **state)
{
    (void)state;
    for (gpu_type type = GPU_FP16; type <= GPU_FP32; type++) {
        trial *t = new_trial(type);
        assert_int_equal(t->device.tries, 1);
        EXPECT_ANY(t, is_conv);
        EXPECT_ANY(t, is_norm_of_values);
        EXPECT_ANY(t, is_attention);
        if (type != GPU_FP32) EXPECT_ANY(t, is_last);
        free_trial(t);
    }
}

static void the_fused_convolution(void **state)
{
    (void)state;
    for (gpu_type type = GPU_FP16; type <= GPU_BF16; type++) {
        trial *t = new_trial(type);
        if (t->device.fusing == GPU_FUSES_NOTHING) {
            free_trial(t);
            skip();
        }
        EXPECT_ANY(t, is_fused_with_norm);
        EXPECT_ANY(t, is_fused_with_residual);
        EXPECT_ANY(t, is_fused_with_shortcut);
        EXPECT_ANY(t, is_fused_with_upsample);
        EXPECT_ANY(t, is_fused_of_several_tiles);
        EXPECT_ANY(t, is_norm_of_parts);
        free_trial(t);
    }
}

static void what_is_for_hopper(void **state)
{
    (void)state;
    for (gpu_type type = GPU_FP16; type <= GPU_BF16; type++) {
        trial *t = new_trial(type);
        const bool can = t->program->fuser == GPU_FUSER_WGMMA;
        if (can) EXPECT_ANY(t, is_attention_fused);
        if (can) EXPECT_ANY(t, is_narrow);
        free_trial(t);
        if (!can) skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_card),
        cmocka_unit_test(the_fused_convolution),
        cmocka_unit_test(what_is_for_hopper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
