#include "server/linalg/stepped_state_space.h"

#include <algorithm>

#include "server/base/log.h"

namespace ess::linalg {
namespace {

void AddScaled(double factor, const double* from, int64_t count, double* to) {
  for (int64_t j = 0; j < count; ++j) to[j] += factor * from[j];
}

void Scale(double factor, int64_t count, double* x) {
  for (int64_t j = 0; j < count; ++j) x[j] *= factor;
}

// sums[j] = sum_n weights[n] x[n, j].
void WeightedRows(const double* weights, int64_t rows, const double* x, int64_t count,
                  int64_t stride, double* sums) {
  std::fill_n(sums, count, 0.0);
  for (int64_t n = 0; n < rows; ++n) AddScaled(weights[n], x + n * stride, count, sums);
}

}  // namespace

void SteppedStateSpace::FillWindow(int64_t first, int64_t width, StateWindow& window) const {
  const int64_t N = states();
  const int64_t P = RoundUpToBlock(N);
  const int64_t W = RoundUpToBlock(width);
  const int64_t count = std::min(width, length() - first);
  ESS_CHECK(first >= 0 && width >= 1 && count >= 1);
  window.Resize(P * P, P, W);
  std::fill(window.output.begin(), window.output.end(), 0.0);
  std::fill(window.input.begin(), window.input.end(), 0.0);
  std::fill(window.transition.begin(), window.transition.end(), 0.0);
  // What is left of the state before the window, and of each input since: [N, N + count].
  const int64_t stride = N + count;
  std::vector<double> state(N * stride, 0.0);
  for (int64_t n = 0; n < N; ++n) state[n * stride + n] = 1;
  std::vector<double> c(N);
  std::vector<double> b(N);
  std::vector<double> seen(stride);
  for (int64_t r = 0; r < count; ++r) {
    WriteOutput(first + r, c.data());
    if (!factors_.reads_before) Advance(first + r, N + r, stride, state.data());
    WeightedRows(c.data(), N, state.data(), N + r, stride, seen.data());
    std::copy_n(seen.begin(), N, window.output.begin() + r * P);
    std::copy_n(seen.begin() + N, r, window.inside.begin() + r * W);
    if (factors_.reads_before) Advance(first + r, N + r, stride, state.data());
    WriteInput(first + r, b.data());
    for (int64_t n = 0; n < N; ++n) state[n * stride + N + r] = b[n];
  }
  for (int64_t n = 0; n < N; ++n) {
    std::copy_n(state.begin() + n * stride, N, window.transition.begin() + n * P);
    std::copy_n(state.begin() + n * stride + N, count, window.input.begin() + n * W);
  }
}

void RealSteppedStateSpace::WriteInput(int64_t t, double* b) const {
  std::copy_n(b_ + t * states(), states(), b);
}

void RealSteppedStateSpace::WriteOutput(int64_t t, double* c) const {
  std::copy_n(c_ + t * states(), states(), c);
}

void DeltaStateSpace::Advance(int64_t t, int64_t count, int64_t stride, double* x) const {
  const double* k = k_ + t * states();
  std::vector<double> stored(count);
  WeightedRows(k, states(), x, count, stride, stored.data());
  for (int64_t n = 0; n < states(); ++n) {
    AddScaled(-beta_[t] * k[n], stored.data(), count, x + n * stride);
    Scale(alpha_[t], count, x + n * stride);
  }
}

void DeltaStateSpace::WriteInput(int64_t t, double* b) const {
  RealSteppedStateSpace::WriteInput(t, b);
  Scale(beta_[t], states(), b);
}

void DiagonalPlusRankOneStateSpace::Advance(int64_t t, int64_t count, int64_t stride,
                                            double* x) const {
  const int64_t row = t * states();
  std::vector<double> shared(count);
  WeightedRows(q_ + row, states(), x, count, stride, shared.data());
  for (int64_t n = 0; n < states(); ++n) {
    Scale(w_[row + n], count, x + n * stride);
    AddScaled(p_[row + n], shared.data(), count, x + n * stride);
  }
}

void GeneralStateSpace::Advance(int64_t t, int64_t count, int64_t stride, double* x) const {
  const int64_t N = states();
  const double* a = a_ + t * N * N;
  std::vector<double> moved(N * count);
  for (int64_t n = 0; n < N; ++n) {
    WeightedRows(a + n * N, N, x, count, stride, moved.data() + n * count);
  }
  for (int64_t n = 0; n < N; ++n) std::copy_n(moved.data() + n * count, count, x + n * stride);
}

void ComplexDiagonalStateSpace::Advance(int64_t t, int64_t count, int64_t stride, double* x) const {
  const int64_t complex_states = states() / 2;
  for (int64_t s = 0; s < complex_states; ++s) {
    const Complex gate = a_[scalar_gate_ ? t : t * complex_states + s];
    double* real = x + 2 * s * stride;
    double* imaginary = real + stride;
    for (int64_t j = 0; j < count; ++j) {
      const double moved = gate.real() * real[j] - gate.imag() * imaginary[j];
      imaginary[j] = gate.imag() * real[j] + gate.real() * imaginary[j];
      real[j] = moved;
    }
  }
}

void ComplexDiagonalStateSpace::WriteInput(int64_t t, double* b) const {
  const int64_t complex_states = states() / 2;
  for (int64_t s = 0; s < complex_states; ++s) {
    const Complex input = b_[t * complex_states + s];
    b[2 * s] = input.real();
    b[2 * s + 1] = input.imag();
  }
}

void ComplexDiagonalStateSpace::WriteOutput(int64_t t, double* c) const {
  const int64_t complex_states = states() / 2;
  // Re(c h) = Re(c) Re(h) - Im(c) Im(h).
  for (int64_t s = 0; s < complex_states; ++s) {
    const Complex output = c_[t * complex_states + s];
    c[2 * s] = output.real();
    c[2 * s + 1] = -output.imag();
  }
}

}  // namespace ess::linalg
