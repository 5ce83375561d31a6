//  ctl.h - whole lunactl commands in a child process, against a stand-in broker
//
//  The child is made while this process has one thread, before the stand-in is opened;
//  lunactl waits for it.

#ifndef LUNA_TESTS_CTL_H
#define LUNA_TESTS_CTL_H

#include "producer/stand_in.h"

#include "producer/lunactl/lunactl.h"

#include <sys/wait.h>

#define LINE(...) ((const char *[]){"lunactl", __VA_ARGS__, NULL})

static const char some_id[] = "0192f1c2-a5b0-7c3d-8e4f-5061728394a5";

typedef struct running {
    pid_t pid;
    FILE *out, *err;
    int code;
    char out_text[65536], err_text[4096];
} running;

static inline running begin(stand_in *broker, const char **line)
{
    running child = {.out = tmpfile(), .err = tmpfile()};
    int argc = 0;
    while (line[argc]) argc++;
    fflush(NULL);
    child.pid = fork();
    if (child.pid == 0) {
        dup2(fileno(child.out), STDOUT_FILENO);
        dup2(fileno(child.err), STDERR_FILENO);
        if (broker) setenv("LUNA_BROKER", broker->control_at, 1);
        const int code = luna_ctl_main(argc, (char **)(uintptr_t)line);
        fflush(NULL);
        _exit(code);
    }
    return child;
}

static inline void read_text(FILE *file, char *text, size_t room)
{
    rewind(file);
    text[fread(text, 1, room - 1, file)] = '\0';
    fclose(file);
}

static inline void end(running *child)
{
    int status;
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    assert_true(WIFEXITED(status));
    child->code = WEXITSTATUS(status);
    read_text(child->out, child->out_text, sizeof child->out_text);
    read_text(child->err, child->err_text, sizeof child->err_text);
}

//  Nothing but the exit code and one line on stderr that holds the words.
static inline void assert_failed(const running *child, int code, const char *words)
{
    assert_int_equal(child->code, code);
    assert_string_equal(child->out_text, "");
    assert_memory_equal(child->err_text, "lunactl: ", 9);
    assert_ptr_equal(strchr(child->err_text, '\n'), strrchr(child->err_text, '\n'));
    if (!strstr(child->err_text, words))
        fail_msg("'%s' does not say '%s'", child->err_text, words);
}

//  A command that ends without a broker.
static inline void assert_error(const char **line, int code, const char *words)
{
    running child = begin(NULL, line);
    end(&child);
    assert_failed(&child, code, words);
}

//  The child's only line on stderr as JSON: its error and sentence.
static inline void assert_json_error(const running *child, int code, const char *error,
                                     const char *words)
{
    assert_int_equal(child->code, code);
    json_t *value = json_loads(child->err_text, 0, NULL);
    if (!value) fail_msg("'%s' is not JSON", child->err_text);
    assert_string_equal(json_string_value(json_object_get(value, "error")), error);
    const char *detail = json_string_value(json_object_get(value, "detail"));
    if (!detail || !strstr(detail, words))
        fail_msg("'%s' does not say '%s'", child->err_text, words);
    json_decref(value);
}

//  Text on stdout, nothing on stderr, success.
static inline void assert_said(running *child, const char *words)
{
    end(child);
    assert_string_equal(child->err_text, "");
    assert_int_equal(child->code, 0);
    if (!strstr(child->out_text, words))
        fail_msg("'%s' does not say '%s'", child->out_text, words);
}

static inline json_t *json_of(running *child)
{
    end(child);
    assert_string_equal(child->err_text, "");
    assert_int_equal(child->code, 0);
    json_t *value = json_loads(child->out_text, 0, NULL);
    assert_non_null(value);
    return value;
}

static inline int64_t number_in(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) fail_msg("'%s' is no integer", key);
    return json_integer_value(value);
}

static inline const char *text_in(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    if (!value) fail_msg("'%s' is no text", key);
    return value;
}

//  ---- the broker's side -----------------------------------------------------------

//  A command, and a broker that has greeted it.
static inline running start(stand_in *broker, const char **line)
{
    stand_in_name(broker);
    const running child = begin(broker, line);
    stand_in_open(broker);
    welcome(broker);
    return child;
}

static inline void answer_query(stand_in *broker, const char *what,
                                luna_msg_answer answer)
{
    taken message;
    luna_msg_query query;
    take_control(broker, LUNA_MSG_QUERY, &message);
    assert_int_equal(luna_packet_read(message.packet, &query), LUNA_OK);
    assert_true(luna_text_is(query.what, what));
    answer.re = query.re;
    release(&message);
    send_control(broker, LUNA_MSG_ANSWER, &answer);
}

static inline luna_msg_job_info job_in(const char *job_state, const luna_msg_image *files,
                                       size_t count)
{
    luna_msg_job_info job = {.state = luna_text_of(job_state),
                             .images = 2,
                             .images_done = count,
                             .files = {files, count}};
    assert_int_equal(luna_id_parse(some_id, &job.id), LUNA_OK);
    return job;
}

//  Takes the next order of that type and answers it; its texts are gone.
static inline luna_msg_order answer_order(stand_in *broker, luna_msg_type type,
                                          luna_msg_answer answer)
{
    taken message;
    luna_msg_order order;
    take_control(broker, type, &message);
    assert_int_equal(luna_packet_read(message.packet, &order), LUNA_OK);
    answer.re = order.re;
    send_control(broker, LUNA_MSG_ANSWER, &answer);
    order.decoder = (luna_text){0};
    release(&message);
    return order;
}

#endif
