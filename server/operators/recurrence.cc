#include "server/operators/recurrence.h"

#include <ATen/ATen.h>

namespace ess::operators {

at::Tensor ApplyRecurrence(const at::Tensor& u, int64_t states, bool read_before,
                           const RecurrenceSteps& steps) {
  const int64_t length = u.size(1);
  at::Tensor state = at::zeros({u.size(0), states, u.size(2)}, u.options());  // [H, N, C]
  at::Tensor y = at::empty_like(u);                                           // [H, L, C]
  for (int64_t t = 0; t < length; ++t) {
    // [H, N, 1] * [H, 1, C] => [H, N, C]
    const at::Tensor next =
        steps.advance(t, state) + steps.input(t).unsqueeze(2) * u.select(1, t).unsqueeze(1);
    const at::Tensor& seen = read_before ? state : next;
    const at::Tensor output = (steps.output(t).unsqueeze(2) * seen).sum(1);  // [H, C]
    y.select(1, t).copy_(output.is_complex() ? at::real(output) : output);
    state = next;
  }
  return y;
}

}  // namespace ess::operators
