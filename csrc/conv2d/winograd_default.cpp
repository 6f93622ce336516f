#include "../cpu/target_default.h"
// The target comes first: it changes how what follows is compiled.
#include "winograd_loops.h"
