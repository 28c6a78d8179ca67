// What all recurrences share: running one over inputs, and writing the matrix that it stands for.
//
//   h_t = A_t h_{t-1} + b_t u_t,   y_t = c_t . h_t  (post-read)  or  y_t = c_t . h_{t-1} (pre-read)
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <complex>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"

namespace ess::operators {

// One step of all heads, with C inputs side by side.
struct RecurrenceSteps {
  // A_t h_{t-1}: [H, N, C] => [H, N, C].
  absl::FunctionRef<at::Tensor(int64_t t, const at::Tensor& state)> advance;
  absl::FunctionRef<at::Tensor(int64_t t)> input;   // b_t [H, N]
  absl::FunctionRef<at::Tensor(int64_t t)> output;  // c_t [H, N]
};

// y of a real input u; of a complex recurrence, the real part. u and the result are [H, L, C],
// float64.
at::Tensor ApplyRecurrence(const at::Tensor& u, int64_t states, bool read_before,
                           const RecurrenceSteps& steps);

// States of one head under as many inputs side by side: element n holds h[n] of each.
inline constexpr int64_t kColumns = 8;
template <typename Scalar>
using StateColumns = std::vector<std::array<Scalar, kColumns>>;

// row . h for each of the columns. `row` has as many elements as the state.
template <typename Scalar>
std::array<Scalar, kColumns> ColumnDots(const Scalar* row, const StateColumns<Scalar>& state) {
  std::array<Scalar, kColumns> sums{};
  for (size_t n = 0; n < state.size(); ++n) {
    for (int64_t column = 0; column < kColumns; ++column) {
      sums[column] += row[n] * state[n][column];
    }
  }
  return sums;
}

// Writes T of one head, [L, L] and zero above the diagonal: column j is what the recurrence makes
// of an impulse at j. Only products of transitions: a transition of 0, or a product that
// underflows, gives entries that are right to rounding.
//
// Shapes: c is [L, N]. `advance(t, state)` replaces the state by A_t times it; `input(t, n)` is
//         b_t[n].
// Cost:   O(L^2 N), and L / (2 kColumns) times `advance` for each position.
template <typename Scalar, typename Advance, typename Input>
void WriteRecurrence(int64_t length, std::span<const Scalar> c, bool read_before,
                     const Advance& advance, const Input& input, std::span<double> out) {
  const int64_t states = static_cast<int64_t>(c.size()) / length;
  StateColumns<Scalar> state(states);
  std::fill(out.begin(), out.end(), 0.0);
  for (int64_t first = 0; first < length; first += kColumns) {
    // Row t of T, for the impulses that the state knows of.
    const auto read = [&](int64_t t, int64_t impulses) {
      const std::array<Scalar, kColumns> y = ColumnDots(c.data() + t * states, state);
      for (int64_t column = 0; column < std::min(impulses, kColumns); ++column) {
        out[t * length + first + column] = std::real(y[column]);
      }
    };
    std::fill(state.begin(), state.end(), std::array<Scalar, kColumns>{});
    for (int64_t t = first; t < length; ++t) {
      if (read_before) read(t, t - first);
      if (t > first) advance(t, state);
      if (t < first + kColumns) {
        for (int64_t n = 0; n < states; ++n) state[n][t - first] = input(t, n);
      }
      if (!read_before) read(t, t - first + 1);
    }
  }
}

}  // namespace ess::operators
