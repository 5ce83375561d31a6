#include "producer/lunactl/lunactl.h"

int main(int argc, char **argv)
{
    return luna_ctl_main(argc, argv);
}
