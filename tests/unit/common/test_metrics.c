//  Histograms and the page, read as Prometheus would.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
//  cmocka wants the four before it
#include "common/metrics.h"

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double value_of(const luna_page *page, const char *series)
{
    char line[256];
    snprintf(line, sizeof line, "\n%s ", series);
    const char *at = strstr(page->data, line);
    if (!at) fail_msg("no series '%s' in\n%s", series, page->data);
    return strtod(at + strlen(line), NULL);
}

static void test_histogram_counts_each_once(void **state)
{
    (void)state;
    luna_histogram h = {0};
    luna_page page = {0};
    const double ms[] = {0.05, 0.1, 0.15, 3, 999, 1001, 2e6, -5};
    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++)
        luna_histogram_add_ms(&h, ms[i]);
    luna_page_family(&page, "luna_wait_seconds", "histogram", "Waiting.");
    luna_page_histogram(&page, "kind=\"put\"", &h);
    assert_false(page.failed);
    const double at_most[][2] = {{0.0001, 3}, {0.0002, 4}, {0.002, 4}, {0.005, 5},
                                 {1, 6},      {2, 7},      {1000, 7}};
    for (size_t i = 0; i < sizeof at_most / sizeof at_most[0]; i++) {
        char series[96];
        snprintf(series, sizeof series,
                 "luna_wait_seconds_bucket{kind=\"put\",le=\"%g\"}", at_most[i][0]);
        assert_true(value_of(&page, series) == at_most[i][1]);
    }
    assert_true(value_of(&page, "luna_wait_seconds_bucket{kind=\"put\",le=\"+Inf\"}") ==
                8);
    assert_true(value_of(&page, "luna_wait_seconds_count{kind=\"put\"}") == 8);
    const double sum_s = value_of(&page, "luna_wait_seconds_sum{kind=\"put\"}");
    assert_true(sum_s > 2002.003 && sum_s < 2002.004);
    luna_page_free(&page);
}

static void test_page_is_prometheus_text(void **state)
{
    (void)state;
    luna_page page = {0};
    luna_page_family(&page, "luna_jobs", "gauge", "Active jobs.");
    luna_page_value(&page, "state=\"pending\"", 3);
    luna_page_family(&page, "luna_images_total", "counter", "Images.");
    luna_page_value(&page, "", 9007199254740991.0);
    assert_string_equal(page.data,
                        "# HELP luna_jobs Active jobs.\n# TYPE luna_jobs gauge\n"
                        "luna_jobs{state=\"pending\"} 3\n"
                        "# HELP luna_images_total Images.\n"
                        "# TYPE luna_images_total counter\n"
                        "luna_images_total 9007199254740991\n");
    assert_int_equal(page.len, strlen(page.data));
    luna_page_free(&page);
    assert_null(page.data);
}

static void test_labels_are_escaped_and_cut(void **state)
{
    (void)state;
    char label[64], small[16];
    luna_page_label(label, sizeof label, "name", "a\"b\\c\nd");
    assert_string_equal(label, "name=\"a\\\"b\\\\c\\nd\"");
    luna_page_label(small, sizeof small, "name", "0123456789012345");
    assert_int_equal(small[strlen(small) - 1], '"');
    assert_true(strlen(small) < sizeof small);
    luna_page_label(small, sizeof small, "name", "\"\"\"\"\"\"\"\"\"\"\"\"");
    assert_int_equal(small[strlen(small) - 1], '"');
    assert_true(strlen(small) < sizeof small);
}

static void test_a_long_page_grows(void **state)
{
    (void)state;
    luna_page page = {0};
    luna_page_family(&page, "luna_x", "gauge", "X.");
    for (int i = 0; i < 20000; i++) luna_page_value(&page, "a=\"b\"", i);
    assert_false(page.failed);
    assert_int_equal(page.len, strlen(page.data));
    assert_string_equal(page.data + page.len - 20, "luna_x{a=\"b\"} 19999\n");
    luna_page_free(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histogram_counts_each_once),
        cmocka_unit_test(test_page_is_prometheus_text),
        cmocka_unit_test(test_labels_are_escaped_and_cut),
        cmocka_unit_test(test_a_long_page_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
