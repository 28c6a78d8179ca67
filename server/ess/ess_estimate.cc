#include "server/ess/ess_estimate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "server/linalg/serial_torch.h"

namespace ess {
namespace {

using Kind = Measure::Kind;

// Floating point operations of one pass of the inertia tree, and of finding max_i sigma_1(H_i),
// in units of L^3.
constexpr double kTreePass = 0.54;
constexpr double kSpectralNorm = 0.7;
// What a pass at a further tolerance costs of the first one.
constexpr double kFurtherPass = 0.65;
// Speed of LibTorch's SVD as a share of its matrix product's.
constexpr double kSvdSpeed = 0.4;
// Seconds of a product of these matrices are long enough for the clock.
constexpr int64_t kProbeSize = 384;
constexpr int kProbes = 3;

bool IsCount(const Measure& measure) {
  return measure.kind == Kind::kTolerance || measure.kind == Kind::kHeadRelative;
}

double MeasureSpeed() {
  const linalg::SerialTorch serial;
  const at::Tensor a = at::ones({kProbeSize, kProbeSize}, at::kDouble);
  at::Tensor product = at::mm(a, a);  // Warms up.
  double shortest = 1e9;
  for (int probe = 0; probe < kProbes; ++probe) {
    const auto start = std::chrono::steady_clock::now();
    at::mm_out(product, a, a);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    shortest = std::min(shortest, seconds.count());
  }
  return 2 * std::pow(kProbeSize, 3) / shortest;
}

}  // namespace

EssEstimate EstimateEss(const OperatorOutline& outline, std::span<const int64_t> positions,
                        std::span<const Measure> measures, const EssOptions& options) {
  EssEstimate estimate;
  const double length = static_cast<double>(outline.length);
  const double cubed = length * length * length;
  // The dense form, and its largest singular value.
  double state = 1;
  if (outline.state_size.kind == operators::StateSize::Kind::kConstant) {
    state = static_cast<double>(outline.state_size.size);
  }
  estimate.flops = 2 * state * length * length + kSpectralNorm * cubed;
  int64_t passes = 0;
  for (const Measure& measure : measures) {
    if (measure.kind == Kind::kFrobeniusNorm) {
      estimate.routes.push_back("prefix_sums");
    } else if (IsCount(measure) && ReferenceWork({&measure, 1}, outline.length, positions) == 0) {
      estimate.routes.push_back("inertia_tree");
      // A certificate counts on both sides of the tolerance.
      for (int pass = options.certify ? 2 : 1; pass > 0; --pass) {
        estimate.flops += kTreePass * cubed * (passes++ == 0 ? 1 : kFurtherPass);
      }
    } else {
      estimate.routes.push_back("reference_svd");
    }
  }
  // One decomposition at each position serves all measures that need it.
  estimate.flops += ReferenceWork(measures, outline.length, positions) / kSvdSpeed;
  estimate.scratch_bytes =
      4 * outline.length * outline.length * static_cast<int64_t>(sizeof(double));
  return estimate;
}

double FloatSpeed() {
  static const double speed = MeasureSpeed();
  return speed;
}

}  // namespace ess
