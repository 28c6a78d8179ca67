// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/band_norms.h"

#include <algorithm>
#include <cmath>

#include "server/base/log.h"
#include "server/linalg/tridiagonal.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/band_norms.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/band_lanczos-inl.h"
#include "server/linalg/window_operator-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

inline constexpr int kBandSteps = 24;
// Norm of the noise, in each of the two parts of a start vector of norm 1.
inline constexpr double kNoise = 0.02;
// A band that is smaller, in the window's units, plays no part, and near underflow it has no digits
// to make a vector of.
inline constexpr double kSmallestBand = 1e-200;

// The same numbers every time: what is found must not depend on what was done before.
class Noise {
 public:
  // Uniform between -1 and 1.
  double operator()() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(static_cast<int64_t>(state_) >> 11) * 0x1p-52;
  }

 private:
  uint64_t state_ = 88172645463325252u;
};

double Dot(std::span<const double> x, std::span<const double> y) {
  double sums[kBlock] = {};  // The sizes are multiples of 8.
  for (size_t k = 0; k < x.size(); k += kBlock) {
    for (size_t lane = 0; lane < kBlock; ++lane) sums[lane] += x[k + lane] * y[k + lane];
  }
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

// The top eigenvector of the band [band], of norm 1 or 0, to a few digits.
HWY_NOINLINE std::vector<double> TopOfBand(const WindowOperator& op, int64_t band, Noise& noise) {
  std::vector<double> top(band, 0.0);
  std::vector<std::vector<double>> basis(1, std::vector<double>(band));
  for (double& entry : basis[0]) entry = noise();
  const double start_norm = std::sqrt(Dot(basis[0], basis[0]));
  for (double& entry : basis[0]) entry /= start_norm;
  Tridiagonal t;
  const int steps = static_cast<int>(std::min<int64_t>(kBandSteps, band));
  for (int step = 0; step < steps; ++step) {
    std::vector<double> next(band);
    op.ApplyBand(basis[step], next);
    if (step > 0) {
      for (int64_t k = 0; k < band; ++k) next[k] -= t.below[step - 1] * basis[step - 1][k];
    }
    t.diagonal.push_back(Dot(next, basis[step]));
    for (int64_t k = 0; k < band; ++k) next[k] -= t.diagonal[step] * basis[step][k];
    const double norm = std::sqrt(Dot(next, next));
    if (step + 1 == steps || !(norm > 1e-14 * std::abs(t.diagonal[0]))) break;
    t.below.push_back(norm);
    for (double& entry : next) entry /= norm;
    basis.push_back(std::move(next));
  }
  const double value = t.LargestEigenvalue();
  if (!(value > kSmallestBand)) return top;
  const std::vector<double> weights = t.TopEigenvector(value);
  for (size_t step = 0; step < weights.size(); ++step) {
    for (int64_t k = 0; k < band; ++k) top[k] += weights[step] * basis[step][k];
  }
  const double norm = std::sqrt(Dot(top, top));
  for (double& entry : top) entry /= norm;
  return top;
}

void WindowSpectralNormsOnTarget(const BandWindow& window, std::span<const uint8_t> wanted,
                                 std::span<double> norms, Arena& arena, WorkMeter& meter) {
  const ArenaScope scope(arena);
  const WindowOperator op(window, arena);
  const int64_t common = window.common;
  const int64_t width = window.width;
  Noise noise;
  std::vector<double> start(common + width, 0.0);
  if (window.band > 0) {
    const std::vector<double> top = TopOfBand(op, window.band, noise);
    std::copy(top.begin(), top.end(), start.begin());
  }
  const double common_noise = kNoise * std::sqrt(3.0 / static_cast<double>(common + 1));
  const double width_noise = kNoise * std::sqrt(3.0 / static_cast<double>(width));
  for (int64_t k = 0; k < common + width; ++k) {
    start[k] += (k < common ? common_noise : width_noise) * noise();
  }
  StripLanczos lanczos(op, width, arena);
  for (int64_t first = 0; first < width; first += kStrip) {
    const int64_t columns = std::min(kStrip, width - first);
    HWY_ALIGN double squares[kStrip];
    lanczos.Run(first, wanted.subspan(first, columns), common, start, squares, meter);
    if (!meter.status().ok()) return;
    for (int64_t c = 0; c < columns; ++c) {
      norms[first + c] = wanted[first + c] != 0 ? std::sqrt(squares[c]) : 0;
    }
  }
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {
HWY_EXPORT(WindowSpectralNormsOnTarget);
}  // namespace

absl::StatusOr<std::vector<double>> WindowSpectralNorms(const BandWindow& window,
                                                        std::span<const uint8_t> wanted,
                                                        Arena& arena,
                                                        const CancellationToken& cancellation) {
  ESS_CHECK(static_cast<int64_t>(wanted.size()) == window.width);
  WorkMeter meter(cancellation);
  std::vector<double> norms(window.width, 0.0);
  HWY_DYNAMIC_DISPATCH(WindowSpectralNormsOnTarget)(window, wanted, norms, arena, meter);
  if (!meter.status().ok()) return meter.status();
  return norms;
}

int64_t WindowNormsScratch(int64_t common, int64_t width) {
  // The operator, then the vectors of a strip.
  return 3 * kBlock * common + 2 * width * common + 3 * width * width +
         (3 * common + 4 * width) * kStrip + 16 * kBlock;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
