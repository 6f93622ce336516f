#include "../cpu/target_default.h"
// The target comes first: it changes how what follows is compiled.
#include "max_pool2d_loops.h"
