// The matrix of a recurrence straight from its formula, transition by transition.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace ess::testing {

// T[i, j] = Re(c_i A_i A_{i-1} ... A_{j+1} b_j) for j <= i; pre-read, without A_i, for j < i.
// A is [L, N, N], b and c are [L, N], float64 or complex128; the result is row-major [L, L].
inline std::vector<double> NaiveRecurrence(const at::Tensor& A, const at::Tensor& b,
                                           const at::Tensor& c, bool read_before) {
  const int64_t L = b.size(0);
  std::vector<double> T(L * L, 0.0);
  for (int64_t j = 0; j < L; ++j) {
    for (int64_t i = read_before ? j + 1 : j; i < L; ++i) {
      at::Tensor state = b[j];
      for (int64_t t = j + 1; t < (read_before ? i : i + 1); ++t) state = at::mv(A[t], state);
      const at::Tensor y = (c[i] * state).sum();
      T[i * L + j] = (y.is_complex() ? at::real(y) : y).item<double>();
    }
  }
  return T;
}

}  // namespace ess::testing
