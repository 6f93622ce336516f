// Runs CUDA kernels on a CPU, one block after another, its threads taking turns from barrier to
// barrier: slow, but with all the barriers and indices of the real thing.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include <cuda_runtime_api.h>

#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

struct EmulatedThread {
  static constexpr size_t stack_bytes = 64 * 1024;
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  ucontext_t context;
  bool done;
};

inline ucontext_t scheduler;
inline EmulatedThread* running;

inline void __syncthreads() {
  const uint3 mine = threadIdx;
  swapcontext(&running->context, &scheduler);
  threadIdx = mine;
}
inline int64_t min(int64_t a, int64_t b) { return std::min(a, b); }

template <class Kernel>
void emulate(dim3 grid, dim3 block, const Kernel& kernel) {
  static const Kernel* body;
  static std::vector<EmulatedThread> threads;
  body = &kernel;
  gridDim = grid;
  blockDim = block;
  threads.resize(std::max<size_t>(threads.size(), block.x * block.y));
  for (unsigned part = 0; part < grid.x * grid.y; ++part) {
    blockIdx = {part % grid.x, part / grid.x, 0};
    const unsigned count = block.x * block.y;
    for (unsigned i = 0; i < count; ++i) {
      EmulatedThread& thread = threads[i];
      thread.done = false;
      getcontext(&thread.context);
      thread.context.uc_stack = {thread.stack.get(), 0, EmulatedThread::stack_bytes};
      thread.context.uc_link = &scheduler;
      makecontext(&thread.context, +[] { (*body)(), running->done = true; }, 0);
    }
    for (unsigned done = 0; done == 0;) {
      for (unsigned i = 0; i < count; ++i) {
        running = &threads[i];
        threadIdx = {i % block.x, i / block.x, 0};
        swapcontext(&scheduler, &running->context);
        done += running->done;
      }
      if (done != 0 && done != count) std::abort();  // a barrier that not all threads reach
    }
  }
}

inline cudaError_t emulated_last_error() { return cudaSuccess; }
