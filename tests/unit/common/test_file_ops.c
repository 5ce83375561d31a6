//  Writing and reading whole, whatever the system calls do in pieces.

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/file_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int calls;

//  A third of what is asked for, and each third call is interrupted.
static ssize_t write_some(int fd, const void *data, size_t len)
{
    if (++calls % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return write(fd, data, (len + 2) / 3);
}

static ssize_t read_some(int fd, void *data, size_t len, off_t at)
{
    if (++calls % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return pread(fd, data, (len + 2) / 3, at);
}

static ssize_t write_nothing(int fd, const void *data, size_t len)
{
    (void)fd;
    (void)data;
    (void)len;
    errno = ENOSPC;
    return -1;
}

static int open_file(void)
{
    const int fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    unlink("file");
    return fd;
}

static void pieces_become_a_whole(void **state)
{
    (void)state;
    enum { HEAD = 100, BYTES = 5 << 19 };  //  over two whole MiB of the file
    luna_file_ops ops = luna_file_ops_system;
    uint8_t *data = malloc(BYTES), *back = calloc(1, BYTES);
    assert_non_null(data);
    assert_non_null(back);
    for (size_t i = 0; i < BYTES; i++) data[i] = (uint8_t)(i * 31 >> 3);
    ops.write = write_some;
    ops.read = read_some;
    const int fd = open_file();
    assert_int_equal(ops.allocate(fd, HEAD + BYTES), 0);
    assert_int_equal(luna_file_ops_write(&ops, fd, data, HEAD), 0);
    assert_int_equal(luna_file_ops_write_early(&ops, fd, data, BYTES, HEAD), 0);
    assert_int_equal(ops.sync_data(fd), 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), HEAD + BYTES);
    assert_int_equal(luna_file_ops_read(&ops, fd, back, BYTES, HEAD), 0);
    assert_memory_equal(data, back, BYTES);
    close(fd);
    free(data);
    free(back);
}

static void failures_are_passed_on(void **state)
{
    (void)state;
    luna_file_ops ops = luna_file_ops_system;
    char byte;
    const int fd = open_file();
    assert_int_equal(luna_file_ops_write(&ops, fd, "abc", 3), 0);
    errno = 0;
    assert_int_equal(luna_file_ops_read(&ops, fd, &byte, 1, 3), -1);  //  past the end
    assert_int_equal(errno, EIO);
    ops.write = write_nothing;
    assert_int_equal(luna_file_ops_write_early(&ops, fd, "abc", 3, 3), -1);
    assert_int_equal(errno, ENOSPC);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_become_a_whole),
        cmocka_unit_test(failures_are_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
