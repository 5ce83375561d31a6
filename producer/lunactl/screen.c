#include "producer/lunactl/screen.h"

#include "producer/lunactl/page.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

//  Alternate screen, no cursor, no wrapping at the right edge; and back.
#define ENTER "\033[?1049h\033[?25l\033[?7l\033[2J"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

bool luna_screen_possible(void)
{
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

static bool write_all(const char *text, size_t len)
{
    while (len) {
        const ssize_t written = write(STDOUT_FILENO, text, len);
        if (written < 0 && errno != EINTR && errno != EAGAIN) return false;
        if (written < 0 && errno == EAGAIN)
            poll(&(struct pollfd){.fd = STDOUT_FILENO, .events = POLLOUT}, 1, 1000);
        if (written <= 0) continue;
        text += written;
        len -= (size_t)written;
    }
    return true;
}

static void measure(luna_screen *screen)
{
    luna_page_size(STDOUT_FILENO, &screen->rows, &screen->columns);
}

//  Ctrl-C stays a signal.
static void enter(luna_screen *screen)
{
    if (screen->keys >= 0) {
        struct termios raw = screen->saved;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        tcsetattr(screen->keys, TCSADRAIN, &raw);
    }
    write_all(ENTER, strlen(ENTER));
    measure(screen);
}

static void leave(luna_screen *screen)
{
    write_all(LEAVE, strlen(LEAVE));
    if (screen->keys >= 0) tcsetattr(screen->keys, TCSADRAIN, &screen->saved);
}

static sigset_t taken_signals(void)
{
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) sigaddset(&set, taken[i]);
    return set;
}

luna_err luna_screen_open(luna_screen *screen)
{
    const sigset_t set = taken_signals();
    *screen = (luna_screen){.keys = -1};
    screen->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (screen->signals < 0)
        return luna_error_errno(LUNA_UNAVAILABLE, "cannot watch for signals");
    sigprocmask(SIG_BLOCK, &set, &screen->saved_mask);
    if (tcgetattr(STDIN_FILENO, &screen->saved) == 0) screen->keys = STDIN_FILENO;
    enter(screen);
    return LUNA_OK;
}

void luna_screen_close(luna_screen *screen)
{
    if (screen->rows == 0) return;
    leave(screen);
    close(screen->signals);
    const int ended_by = screen->ended_by;
    const sigset_t mask = screen->saved_mask;
    *screen = (luna_screen){.keys = -1};
    if (ended_by && ended_by != SIGINT) raise(ended_by);
    sigprocmask(SIG_SETMASK, &mask, NULL);
}

//  A row is cleared before it is written: behind a full one the cursor stands on its
//  last character. Below the page everything is cleared.
static size_t compose(const luna_screen *screen, const char *page, char *out)
{
    char *at = stpcpy(out, "\033[H");
    size_t row = 0;
    for (; row < screen->rows && *page; row++) {
        const size_t len = strcspn(page, "\n");
        at = stpcpy(at, row ? "\n\033[K" : "\033[K");
        memcpy(at, page, len);
        at += len;
        page += len + (page[len] == '\n');
    }
    if (row < screen->rows) at = stpcpy(at, "\n\033[J");
    return (size_t)(at - out);
}

luna_err luna_screen_show(luna_screen *screen, const char *page)
{
    char *frame = malloc(strlen(page) + 4 * screen->rows + 16);
    if (!frame) return luna_error(LUNA_NO_MEMORY, "out of memory");
    const bool shown = write_all(frame, compose(screen, page, frame));
    free(frame);
    return shown ? LUNA_OK : luna_error_errno(LUNA_IO, "cannot write to the terminal");
}

static void stop(luna_screen *screen)
{
    leave(screen);
    kill(getpid(), SIGSTOP);
    enter(screen);
}

static luna_screen_event take_signal(luna_screen *screen)
{
    struct signalfd_siginfo info;
    if (read(screen->signals, &info, sizeof info) != (ssize_t)sizeof info)
        return LUNA_SCREEN_TIME;
    switch ((int)info.ssi_signo) {
        case SIGWINCH:
            measure(screen);
            return LUNA_SCREEN_RESIZED;
        case SIGTSTP:
            stop(screen);
            return LUNA_SCREEN_RESIZED;
        default:
            screen->ended_by = (int)info.ssi_signo;
            return LUNA_SCREEN_LEAVE;
    }
}

//  End of file means that the terminal is gone.
static luna_screen_event take_keys(luna_screen *screen, short events)
{
    char keys[64];
    const ssize_t count = read(screen->keys, keys, sizeof keys);
    if (count <= 0 && (events & (POLLHUP | POLLERR))) return LUNA_SCREEN_LEAVE;
    for (ssize_t i = 0; i < count; i++)
        if (keys[i] == 'q' || keys[i] == 'Q') return LUNA_SCREEN_LEAVE;
    return LUNA_SCREEN_TIME;
}

luna_screen_event luna_screen_wait(luna_screen *screen, int news, int timeout_ms)
{
    struct pollfd waited[] = {{.fd = screen->signals, .events = POLLIN},
                              {.fd = screen->keys, .events = POLLIN},
                              {.fd = news, .events = POLLIN}};
    if (poll(waited, 3, timeout_ms) <= 0) return LUNA_SCREEN_TIME;
    if (waited[0].revents) return take_signal(screen);
    if (waited[1].revents) {
        const luna_screen_event event = take_keys(screen, waited[1].revents);
        if (event != LUNA_SCREEN_TIME) return event;
    }
    return waited[2].revents ? LUNA_SCREEN_NEWS : LUNA_SCREEN_TIME;
}
