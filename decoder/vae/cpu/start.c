//  OpenMP's threads spin while they wait, for a processor each. Beside an encode pool, or
//  a ComfyUI, that takes the processors from whoever has work: a decode then needs
//  several times as long. The library reads its wait policy once, when it is loaded, so
//  the only way to set it is to start again.

#include "decoder/vae/cpu/onednn.h"

#include <stdlib.h>
#include <unistd.h>

void luna_onednn_start(char **argv)
{
    static const char policy[] = "OMP_WAIT_POLICY";
    if (getenv(policy) || setenv(policy, "passive", 0) != 0) return;
    execv("/proc/self/exe", argv);
    //  Where that cannot be, decoding is slower under load, and as right.
}
