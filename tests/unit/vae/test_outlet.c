//  Images handed on one by one: their order, their pixels, and ends in the middle.

#include "vae/vae_test.h"

enum { IMAGES = 4, CHANNELS = 32, SIDE = 3, BYTES = 3 * 64 * SIDE * SIDE };

typedef struct shelf {
    uint8_t pixels[IMAGES][BYTES];
    size_t placed[IMAGES];
    size_t done[IMAGES];
    size_t placed_count;
    size_t done_count;
    size_t room;  //  images that it takes
} shelf;

static luna_err place(void *context, size_t image, void **room)
{
    shelf *s = context;
    if (s->placed_count == s->room) return luna_error(LUNA_NO_SPACE, "the shelf is full");
    s->placed[s->placed_count++] = image;
    *room = s->pixels[image];
    return LUNA_OK;
}

static void done(void *context, size_t image)
{
    shelf *s = context;
    s->done[s->done_count++] = image;
}

typedef struct rig {
    luna_vae *vae;
    float *values;
    luna_vae_latents latents;
    shelf shelf;
} rig;

static luna_err decode(rig *r, size_t first, size_t count)
{
    const luna_vae_outlet outlet = {.format = LUNA_PIXELS_U8,
                                    .rule = LUNA_PIXELS_TRUNCATE,
                                    .place = place,
                                    .done = done,
                                    .context = &r->shelf};
    return luna_vae_decode_to(r->vae, &r->latents, first, count, &outlet);
}

static int setup(void **state)
{
    uint64_t seed = 3;
    rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->vae = open_taef2("cpu");
    r->values = random_floats(&seed, IMAGES * CHANNELS * SIDE * SIDE);
    r->latents = (luna_vae_latents){.data = r->values,
                                    .dtype = LUNA_DTYPE_F32,
                                    .count = IMAGES,
                                    .channels = CHANNELS,
                                    .height = SIDE,
                                    .width = SIDE};
    r->shelf.room = IMAGES;
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig *r = *state;
    luna_vae_close(&r->vae);
    free(r->values);
    free(r);
    return 0;
}

static void in_order_and_as_a_batch(void **state)
{
    rig *r = *state;
    uint8_t *row = malloc(IMAGES * BYTES);
    const luna_vae_target target = {row, IMAGES * BYTES, LUNA_PIXELS_U8,
                                    LUNA_PIXELS_TRUNCATE};
    assert_non_null(row);
    assert_int_equal(luna_vae_decode(r->vae, &r->latents, 0, IMAGES, &target), LUNA_OK);
    assert_int_equal(decode(r, 1, 3), LUNA_OK);
    assert_int_equal(r->shelf.done_count, 3);
    for (size_t i = 1; i < IMAGES; i++) {
        assert_int_equal(r->shelf.placed[i - 1], i);
        assert_int_equal(r->shelf.done[i - 1], i);
        assert_memory_equal(r->shelf.pixels[i], row + i * BYTES, BYTES);
    }
    free(row);
}

static void no_place_ends_it(void **state)
{
    rig *r = *state;
    r->shelf.room = 2;
    assert_int_equal(decode(r, 0, IMAGES), LUNA_NO_SPACE);
    assert_string_equal(luna_error_text(), "the shelf is full");
    assert_int_equal(r->shelf.done_count, 2);
    //  And it goes on where it ended.
    r->shelf.room = IMAGES;
    assert_int_equal(decode(r, 2, 2), LUNA_OK);
    assert_int_equal(r->shelf.done_count, IMAGES);
}

static void what_cannot_be_asked_for(void **state)
{
    rig *r = *state;
    assert_int_equal(decode(r, 3, 2), LUNA_USAGE);
    assert_int_equal(decode(r, 5, 0), LUNA_OK);
    r->values[IMAGES * CHANNELS * SIDE * SIDE - 1] = NAN;
    assert_int_equal(decode(r, 0, IMAGES), LUNA_BAD_LATENT);
    assert_int_equal(r->shelf.placed_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(in_order_and_as_a_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(no_place_ends_it, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_asked_for, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
