// Parts of what is counted from zero: work that one thread has, or a block of a loop.
#pragma once

#include <stdint.h>

namespace cnngraph {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Range {
  int64_t begin, end;
  static Range of_part(int64_t size, int64_t part, int64_t parts) {
    return {size * part / parts, size * (part + 1) / parts};
  }
};

}  // namespace cnngraph
