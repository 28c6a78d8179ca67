#include "server/models/random_fill.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <span>
#include <thread>
#include <vector>

namespace ess::models {
namespace {

// Half a millisecond of work, beside which starting a thread is nothing. Even, as pairs of normal
// numbers want it.
constexpr int64_t kBlock = 1 << 16;

// On threads of its own: at::parallel_for is serial in code that is compiled without OpenMP.
template <typename Fill>
void FillBlocks(at::Tensor& values, Fill fill) {
  float* const data = values.mutable_data_ptr<float>();
  const int64_t count = values.numel();
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  std::atomic<int64_t> next_block = 0;
  const auto work = [&] {
    for (int64_t block = next_block++; block < blocks; block = next_block++) {
      const int64_t first = block * kBlock;
      const int64_t size = std::min(kBlock, count - first);
      fill(first, std::span<float>(data + first, static_cast<size_t>(size)));
    }
  };
  std::vector<std::jthread> helpers;
  for (int64_t t = 1; t < std::min<int64_t>(at::get_num_threads(), blocks); ++t) {
    helpers.emplace_back(work);
  }
  work();
}

}  // namespace

void FillNormal(const RandomNumbers& random, at::Tensor& values) {
  FillBlocks(values, [&](int64_t first, std::span<float> block) { random.Normal(first, block); });
}

void FillUniform(const RandomNumbers& random, at::Tensor& values) {
  FillBlocks(values, [&](int64_t first, std::span<float> block) { random.Uniform(first, block); });
}

}  // namespace ess::models
