#include "server/models/layers/rotary.h"

#include <ATen/ATen.h>

namespace ess::models {

RotaryTable MakeRotaryTable(const RotaryScaling& scaling, int64_t length,
                            const at::Device& device) {
  const at::Tensor frequencies = InverseFrequencies(scaling, length);
  // [L, 1] * [pairs] => [L, pairs] => [L, 1, pairs]
  const at::Tensor angles =
      at::arange(length, at::kFloat).unsqueeze(1).mul(frequencies).unsqueeze(1);
  return {.cos = angles.cos().mul_(scaling.attention_factor).to(device),
          .sin = angles.sin().mul_(scaling.attention_factor).to(device)};
}

at::Tensor RotateHeads(const at::Tensor& x, const RotaryTable& table) {
  const int64_t half = table.cos.size(2);
  const at::Tensor first = x.narrow(2, 0, half);
  const at::Tensor second = x.narrow(2, half, half);
  at::Tensor rotated = at::empty({x.size(1), x.size(0), x.size(2)}, x.options());  // [H, L, d]
  const at::Tensor by_position = rotated.transpose(0, 1);                          // [L, H, d]
  at::Tensor first_out = by_position.narrow(2, 0, half);
  at::Tensor second_out = by_position.narrow(2, half, half);
  at::mul_out(first_out, first, table.cos).addcmul_(second, table.sin, -1);
  at::mul_out(second_out, second, table.cos).addcmul_(first, table.sin);
  const int64_t rest = x.size(2) - 2 * half;
  if (rest > 0) by_position.narrow(2, 2 * half, rest).copy_(x.narrow(2, 2 * half, rest));
  return rotated;
}

}  // namespace ess::models
