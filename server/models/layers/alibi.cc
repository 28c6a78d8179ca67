#include "server/models/layers/alibi.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

namespace ess::models {

at::Tensor AlibiBias(int64_t head_count, int64_t length, const at::Tensor& like) {
  const auto whole = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(head_count)));
  std::vector<double> slopes;
  for (int64_t head = 0; head < head_count; ++head) {
    const double exponent =
        head < whole
            ? -8.0 * static_cast<double>(head + 1) / static_cast<double>(whole)
            : -4.0 * static_cast<double>(2 * (head - whole) + 1) / static_cast<double>(whole);
    slopes.push_back(std::exp2(exponent));
  }
  const at::Tensor positions = at::arange(length, at::kLong).unsqueeze(0);
  const at::Tensor bias = at::tensor(slopes, at::kFloat).to(at::kBFloat16).unsqueeze(1) * positions;
  return bias.to(like.options());
}

}  // namespace ess::models
