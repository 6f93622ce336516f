// Runs CUDA kernels on a CPU, one block after another with a thread of the system for each of
// CUDA's: slow, but with all the barriers and indices of the real thing.
#pragma once

#include <algorithm>
#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

#include <cuda_runtime_api.h>

#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)

inline thread_local uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline std::barrier<>* block_barrier;

inline void __syncthreads() { block_barrier->arrive_and_wait(); }
inline int64_t min(int64_t a, int64_t b) { return std::min(a, b); }

template <class Kernel>
void emulate(dim3 grid, dim3 block, const Kernel& kernel) {
  gridDim = grid;
  blockDim = block;
  const unsigned threads = block.x * block.y;
  std::barrier barrier(threads);
  block_barrier = &barrier;
  std::vector<std::thread> running;
  for (unsigned i = 0; i < threads; ++i) {
    running.emplace_back([&, i] {
      threadIdx = {i % block.x, i / block.x, 0};
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
          blockIdx = {x, y, 0};
          kernel();
          barrier.arrive_and_wait();
        }
      }
    });
  }
  for (std::thread& thread : running) thread.join();
}

inline cudaError_t emulated_last_error() { return cudaSuccess; }
