// Ranges of indices: the work of one thread, or a block of a loop.
#pragma once

#include "../data_type.h"

namespace cnngraph {

struct Range {
  int64_t begin, end;
  static Range of_part(int64_t size, int64_t part, int64_t parts) {
    return {size * part / parts, size * (part + 1) / parts};
  }
};

}  // namespace cnngraph
