#include "server/models/random_fill.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <span>

namespace ess::models {
namespace {

constexpr int64_t kBlock = 1 << 14;  // Even, as pairs of normal numbers want it.

template <typename Fill>
void FillBlocks(at::Tensor& values, Fill fill) {
  float* const data = values.mutable_data_ptr<float>();
  const int64_t count = values.numel();
  at::parallel_for(0, (count + kBlock - 1) / kBlock, /*grain_size=*/1,
                   [&](int64_t begin, int64_t end) {
                     for (int64_t block = begin; block < end; ++block) {
                       const int64_t first = block * kBlock;
                       const int64_t size = std::min(kBlock, count - first);
                       fill(first, std::span<float>(data + first, static_cast<size_t>(size)));
                     }
                   });
}

}  // namespace

void FillNormal(const RandomNumbers& random, at::Tensor& values) {
  FillBlocks(values, [&](int64_t first, std::span<float> block) { random.Normal(first, block); });
}

void FillUniform(const RandomNumbers& random, at::Tensor& values) {
  FillBlocks(values, [&](int64_t first, std::span<float> block) { random.Uniform(first, block); });
}

}  // namespace ess::models
