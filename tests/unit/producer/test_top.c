//  top: its rates, its page in every size, and the terminal it takes and gives back.

#include "producer/ctl.h"

#include "producer/lunactl/top.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

//  ---- rates and page --------------------------------------------------------------

static luna_status counters;
static luna_answer status_answer = {.status = &counters};

static void count(luna_top_data *data, int64_t now_ms, uint64_t completed,
                  uint64_t images)
{
    counters.completed = completed;
    counters.images = images;
    data->status = &status_answer;
    luna_top_rate(data, now_ms);
}

static void rates_are_of_the_latest_seconds(void **state)
{
    (void)state;
    luna_top_data data = {0};
    count(&data, 1000, 10, 100);
    assert_true(data.jobs_per_second < 0 && data.images_per_second < 0);
    count(&data, 1500, 11, 105);  //  too soon to tell
    assert_true(data.jobs_per_second < 0);
    count(&data, 3000, 14, 120);
    assert_true(data.jobs_per_second > 1.99 && data.jobs_per_second < 2.01);
    assert_true(data.images_per_second > 9.99 && data.images_per_second < 10.01);
    for (int64_t i = 0; i < 100; i++) count(&data, 4000 + 1000 * i, 14, 120);
    assert_true(data.jobs_per_second < 0.01);
    assert_true(data.sample_count <= LUNA_TOP_SAMPLES);
    count(&data, 200000, 14, 0);  //  the broker was started anew
    assert_true(data.images_per_second < 0);
}

enum { DECODERS = 30, JOBS = 90 };

static luna_top_data full_data(luna_status *status, luna_decoder *decoders,
                               luna_job *jobs, const luna_job **shown)
{
    static luna_answer answers[4];
    for (size_t i = 0; i < DECODERS; i++)
        decoders[i] =
            (luna_decoder){.name = "decoder-with-a-rather-long-name-\xe4\xb8\xad",
                           .state = "draining",
                           .device = "cuda:1",
                           .vae = "/models/vae/some-very-long-name.safetensors"};
    for (size_t i = 0; i < JOBS; i++) {
        jobs[i] = (luna_job){.id = some_id,
                             .state = i < 4 ? "in_progress" : "pending",
                             .images = 4,
                             .images_done = i,
                             .vae = "taef2_decoder",
                             .decoder = "",
                             .error = ""};
        shown[i] = &jobs[i];
    }
    answers[0].status = status;
    answers[1] = (luna_answer){.decoders = decoders, .decoder_count = DECODERS};
    answers[2] = (luna_answer){.jobs = jobs, .job_count = 4};
    answers[3] = (luna_answer){.jobs = jobs + 4, .job_count = JOBS - 4};
    return (luna_top_data){.status = &answers[0],
                           .decoders = &answers[1],
                           .running = &answers[2],
                           .waiting = &answers[3],
                           .jobs = shown,
                           .job_count = JOBS};
}

static void assert_fits(const luna_top_data *data, size_t rows, size_t columns)
{
    char *text = NULL;
    size_t len = 0, lines = 0;
    FILE *out = open_memstream(&text, &len);
    luna_page page = {.out = out, .width = columns};
    assert_int_equal(luna_top_print(data, &page, rows, "ipc:///run/luna/control"),
                     LUNA_OK);
    fclose(out);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(luna_page_columns(line) <= columns);
    lines = page.lines;
    if (rows >= 24 && lines > rows)
        fail_msg("%zu lines in %zu rows of %zu", lines, rows, columns);
    free(text);
}

static void the_page_fits_every_terminal(void **state)
{
    (void)state;
    luna_status status = {.pending = 1000,
                          .in_progress = 4,
                          .accepting =
                              "a reason that is longer than any terminal: it "
                              "goes on, and on, and on, and then it goes on",
                          .alarm = "look at the disk",
                          .paused = 1,
                          .version = "0.1.0",
                          .images = UINT64_MAX,
                          .queued_bytes = UINT64_MAX,
                          .free_bytes = UINT64_MAX,
                          .oldest_ms = UINT64_MAX,
                          .uptime_ms = UINT64_MAX};
    luna_decoder decoders[DECODERS];
    luna_job jobs[JOBS];
    const luna_job *shown[JOBS];
    const luna_top_data data = full_data(&status, decoders, jobs, shown);
    static const size_t sizes[][2] = {{24, 80},  {40, 132}, {25, 100}, {24, 99},
                                      {100, 40}, {60, 200}, {1, 1},    {5, 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        assert_fits(&data, sizes[i][0], sizes[i][1]);
}

//  ---- on a terminal ---------------------------------------------------------------

typedef struct live {
    stand_in broker;
    pid_t pid;
    int terminal;  //  the other end of it
    char shown[1 << 16];
    size_t len;
} live;

static void begin_live(live *self)
{
    const struct winsize size = {.ws_row = 24, .ws_col = 80};
    stand_in_name(&self->broker);
    self->shown[self->len = 0] = '\0';
    fflush(NULL);
    self->pid = forkpty(&self->terminal, NULL, NULL, &size);
    assert_true(self->pid >= 0);
    if (self->pid == 0) {
        setenv("LUNA_BROKER", self->broker.control_at, 1);
        setenv("TERM", "xterm", 1);
        unsetenv("NO_COLOR");
        _exit(luna_ctl_main(2, (char **)(uintptr_t)LINE("top")));
    }
    stand_in_open(&self->broker);
    welcome(&self->broker);
}

static void answer_questions(live *self, const char *accepting)
{
    const luna_msg_status status = {.accepting = luna_text_of(accepting),
                                    .version = luna_text_of("0.1.0")};
    answer_query(&self->broker, "status", (luna_msg_answer){.status = &status});
    answer_query(&self->broker, "decoders", (luna_msg_answer){0});
    answer_query(&self->broker, "jobs", (luna_msg_answer){0});
    answer_query(&self->broker, "jobs", (luna_msg_answer){0});
}

//  Reads what is shown until the words are among it.
static void wait_shown(live *self, const char *words)
{
    const int64_t limit_ms = luna_now_ms() + TAKE_MS;
    while (!strstr(self->shown, words) && luna_now_ms() < limit_ms) {
        if (poll(&(struct pollfd){.fd = self->terminal, .events = POLLIN}, 1, 100) <= 0)
            continue;
        const ssize_t count = read(self->terminal, self->shown + self->len,
                                   sizeof self->shown - 1 - self->len);
        if (count <= 0) break;
        self->len += (size_t)count;
        self->shown[self->len] = '\0';
    }
    if (!strstr(self->shown, words)) fail_msg("'%s' is not shown", words);
}

static bool has_echo(const live *self)
{
    struct termios modes;
    assert_int_equal(tcgetattr(self->terminal, &modes), 0);
    return (modes.c_lflag & ECHO) && (modes.c_lflag & ICANON);
}

static int end_live(live *self)
{
    int status;
    wait_shown(self, "\033[?25h\033[?1049l");
    assert_int_equal(waitpid(self->pid, &status, 0), self->pid);
    assert_true(has_echo(self));
    close(self->terminal);
    stand_in_close(&self->broker);
    return status;
}

static void assert_left(int status)
{
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("it ended with status %#x", (unsigned)status);
}

static live self;

static void a_key_leaves_and_gives_the_terminal_back(void **state)
{
    (void)state;
    begin_live(&self);
    answer_questions(&self, "yes");
    wait_shown(&self, "\033[?1049h");
    wait_shown(&self, "\033[32maccepting jobs\033[0m");
    assert_false(has_echo(&self));
    answer_questions(&self, "the disk is full");
    wait_shown(&self, "accepting no jobs: the disk is full");
    assert_int_equal(write(self.terminal, "xq", 2), 2);
    const int status = end_live(&self);
    assert_left(status);
}

static void ctrl_c_leaves(void **state)
{
    (void)state;
    begin_live(&self);
    answer_questions(&self, "yes");
    wait_shown(&self, "accepting jobs");
    assert_int_equal(write(self.terminal, "\x03", 1), 1);
    const int status = end_live(&self);
    assert_left(status);
}

static void a_signal_gives_the_terminal_back_first(void **state)
{
    (void)state;
    begin_live(&self);
    answer_questions(&self, "yes");
    wait_shown(&self, "accepting jobs");
    assert_int_equal(kill(self.pid, SIGTERM), 0);
    const int status = end_live(&self);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

//  The page is drawn anew from what is known, without another question.
static void another_size_is_another_page(void **state)
{
    (void)state;
    const struct winsize size = {.ws_row = 30, .ws_col = 20};
    begin_live(&self);
    answer_questions(&self, "a reason of some length");
    wait_shown(&self, "accepting no jobs: a reason of some length\033[0m");
    assert_int_equal(ioctl(self.terminal, TIOCSWINSZ, &size), 0);
    wait_shown(&self, "accepting no jobs: a\033[0m");
    assert_int_equal(write(self.terminal, "Q", 1), 1);
    end_live(&self);
}

static void a_silent_broker_is_shown(void **state)
{
    (void)state;
    begin_live(&self);
    answer_questions(&self, "yes");
    wait_shown(&self, "accepting jobs");
    wait_shown(&self, "OLD, no answer: ");
    assert_int_equal(write(self.terminal, "q", 1), 1);
    end_live(&self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_of_the_latest_seconds),
        cmocka_unit_test(the_page_fits_every_terminal),
        cmocka_unit_test(a_key_leaves_and_gives_the_terminal_back),
        cmocka_unit_test(ctrl_c_leaves),
        cmocka_unit_test(a_signal_gives_the_terminal_back_first),
        cmocka_unit_test(another_size_is_another_page),
        cmocka_unit_test(a_silent_broker_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
