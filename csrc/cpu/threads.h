// Distributes work among threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

namespace cnngraph {

inline int64_t threads_to_share() { return at::in_parallel_region() ? 1 : at::get_num_threads(); }

// Tasks that threads take one by one, in order, so that a slow thread does not delay the others.
class Tasks {
 public:
  explicit Tasks(int64_t count) : count_(count) {}

  // Calls body(task) until no task is left.
  template <class Body>
  void each(const Body& body) {
    for (int64_t task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) body(task);
  }

 private:
  const int64_t count_;
  std::atomic<int64_t> next_{0};
};

// Calls body(tasks) on as many threads as there is work for.
template <class Body>
void share_out(int64_t count, const Body& body) {
  Tasks tasks(count);
  at::parallel_for(0, std::min(threads_to_share(), count), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) body(tasks);
  });
}

}  // namespace cnngraph
