//  screen.h - a whole terminal for as long as a program needs it
//
//  The alternate screen, so that what was there comes back; no echo, keys at once. The
//  signals that end, stop or resize are taken here and the terminal is given back before
//  any of them takes effect. One screen a process, main thread only.

#ifndef LUNA_LUNACTL_SCREEN_H
#define LUNA_LUNACTL_SCREEN_H

#include "common/err.h"

#include <signal.h>
#include <stddef.h>
#include <termios.h>

typedef enum luna_screen_event {
    LUNA_SCREEN_TIME,     //  nothing happened in time
    LUNA_SCREEN_NEWS,     //  the descriptor can be read
    LUNA_SCREEN_RESIZED,  //  or back after a stop: draw again
    LUNA_SCREEN_LEAVE     //  q, Ctrl-C, or a signal that ends the program
} luna_screen_event;

typedef struct luna_screen {
    size_t rows, columns;
    int keys;  //  descriptor; -1: standard input is no terminal
    int signals;
    int ended_by;  //  signal; 0: q
    struct termios saved;
    sigset_t saved_mask;
} luna_screen;

//  Whether standard output is a terminal that can do this.
bool luna_screen_possible(void);

//  Takes the terminal. LUNA_UNAVAILABLE when the system refuses; nothing is changed then.
LUNA_MUST_USE luna_err luna_screen_open(luna_screen *screen);

//  Gives the terminal back; a signal that ended the screen, other than Ctrl-C, then has
//  its usual effect. A closed screen is fine.
void luna_screen_close(luna_screen *screen);

//  Shows lines, as many as there are rows. LUNA_IO when the terminal is gone.
LUNA_MUST_USE luna_err luna_screen_show(luna_screen *screen, const char *page);

//  Waits for a key, a signal, or for `news` to become readable (-1: not for that).
luna_screen_event luna_screen_wait(luna_screen *screen, int news, int timeout_ms);

#endif
