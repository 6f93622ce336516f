// The CUDA passes of a dense block: allocates with torch and launches the kernels of
// batch_norm_act_cuda.cu and dense_block_cuda.cu on torch's current stream. Not yet run on a GPU.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "dense_block_cuda.h"
#include "layers.h"

namespace cnngraph {
namespace {

using at::Tensor;

class PassesOnCuda final : public DenseBlockPasses {
 public:
  explicit PassesOnCuda(const DenseBlockArguments& call)
      : guard_(call.input.device()),
        call_(call),
        act_(parse_activation(call.activation, call.activation_args)) {}

  void statistics(const Tensor& map, const Tensor& mean, const Tensor& var) const override {
    const Launch launch(*this, map, map, map.size(1));
    C10_CUDA_CHECK(cuda::statistics(launch.call, mean.mutable_data_ptr(), var.mutable_data_ptr()));
  }

  Tensor normalised(const Tensor& maps, const DenseBlockStep& step, const Tensor& mean,
                    const Tensor& var) const override {
    const Tensor result = call_.empty_map(mean.size(0));
    Launch launch(*this, maps, result, mean.size(0));
    launch.set_norm(step, mean, var);
    C10_CUDA_CHECK(cuda::forward(launch.call, result.mutable_data_ptr()));
    return result;
  }

  std::pair<Tensor, Tensor> add_gradient(const Tensor& maps, const Tensor& dy, const Tensor& addend,
                                         const Tensor& sum, const DenseBlockStep& step,
                                         const Tensor& mean, const Tensor& var, const Tensor& slope,
                                         const Tensor& offset) const override {
    Launch launch(*this, maps, dy, mean.size(0));
    launch.set_norm(step, mean, var);
    const Tensor dweight = at::empty_like(mean), dbias = at::empty_like(mean);
    const auto data_of = [](const Tensor& tensor) {
      return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
    };
    C10_CUDA_CHECK(cuda::add_gradient(
        launch.call, dy.const_data_ptr(), {addend.const_data_ptr(), call_.stride_of(addend)},
        {sum.mutable_data_ptr(), call_.stride_of(sum)}, data_of(slope), data_of(offset),
        dweight.mutable_data_ptr(), dbias.mutable_data_ptr()));
    return {dweight, dbias};
  }

  Tensor finished(const Tensor& maps, const Tensor& partial, int64_t first, int64_t channels,
                  const Tensor& mean, const Tensor& slope, const Tensor& offset) const override {
    const Tensor result = call_.empty_map(channels);
    const auto part = [&](const Tensor& tensor) -> Strided {
      return {tensor.narrow(1, first, channels).const_data_ptr(), call_.stride_of(tensor)};
    };
    const auto row = [&](const Tensor& tensor) {
      return tensor.narrow(0, first, channels).const_data_ptr();
    };
    C10_CUDA_CHECK(
        cuda::finish_gradient(call_.data_type, {call_.outer(), channels, call_.inner(), 0, 0, 0},
                              part(maps), part(partial), row(mean), row(slope), row(offset),
                              {result.mutable_data_ptr(), call_.stride_of(result)}, stream()));
    return result;
  }

 private:
  // A call over the first channels of two tensors, and the tensors it points to. Freed memory stays
  // with its stream, so there is nothing to wait for.
  struct Launch {
    cuda::BatchNormAct call = {};
    at::ScalarType compute_type;
    Tensor workspace, weight, bias;

    Launch(const PassesOnCuda& passes, const Tensor& x, const Tensor& y, int64_t channels)
        : compute_type(passes.call_.compute_type) {
      call.data_type = passes.call_.data_type;
      call.activation = passes.act_.activation;
      call.arguments = passes.act_.arguments;
      call.eps = passes.call_.eps;
      call.block = {passes.call_.outer(),      channels,
                    passes.call_.inner(),      passes.call_.stride_of(x),
                    passes.call_.stride_of(y), channels * passes.call_.inner()};
      call.input = x.const_data_ptr();
      workspace = at::empty({cuda::workspace_bytes(call.block)}, x.options().dtype(at::kByte));
      call.workspace = workspace.mutable_data_ptr();
      call.stream = stream();
    }

    void set_norm(const DenseBlockStep& step, const Tensor& mean, const Tensor& var) {
      weight = step.norm_weight.to(compute_type).contiguous();
      bias = step.norm_bias.to(compute_type).contiguous();
      call.weight = weight.const_data_ptr();
      call.bias = bias.const_data_ptr();
      call.mean = mean.const_data_ptr();
      call.var = var.const_data_ptr();
    }
  };

  static cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

  c10::cuda::CUDAGuard guard_;
  const DenseBlockArguments& call_;
  ActivationSpec act_;
};

TORCH_LIBRARY_IMPL(cnngraph, CUDA, library) {
  library.impl("dense_block", &dense_block_on<PassesOnCuda>);
  library.impl("dense_block_backward", &dense_block_backward_on<PassesOnCuda>);
}

}  // namespace
}  // namespace cnngraph
