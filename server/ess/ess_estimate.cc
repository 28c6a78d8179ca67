#include "server/ess/ess_estimate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "server/ess/ess_engine.h"
#include "server/linalg/serial_torch.h"

namespace ess {
namespace {

using Kind = Measure::Kind;

// What a main route costs, in units of its own: L^3 for the dense ones, L n^2 for those of a state
// or band of n. Where a pass is made of vectors and not of matrix products, it counts for more.
struct RouteCost {
  Route route;
  double prepare;   // Once per head, max_i sigma_1(H_i) included.
  double pass;      // Counts at a first tolerance;
  double further;   // at each further one.
  double spectral;  // Entropy, or counts relative to sigma_1(H_i): each.
};

constexpr std::array kCosts = {
    RouteCost{Route::kInertiaTree, 0.7, 0.54, 0.35, 3.5},
    RouteCost{Route::kTensorTree, 1.4, 1.1, 1.1, 7},
    RouteCost{Route::kStateWindows, 35, 7, 7, 110},
    RouteCost{Route::kChannelWindows, 40, 20, 20, 100},
    RouteCost{Route::kLocalWindows, 40, 75, 75, 300},
};

// Copying, checking and scaling T, in units of L^2.
constexpr double kCopies = 150;
// Speed of LibTorch's SVD as a share of its matrix product's.
constexpr double kSvdSpeed = 0.4;
// A product of matrices of this size is long enough for the clock.
constexpr int64_t kProbeSize = 384;
constexpr int kProbes = 3;

const RouteCost& CostOf(Route route) {
  return *std::find_if(kCosts.begin(), kCosts.end(),
                       [route](const RouteCost& cost) { return cost.route == route; });
}

bool IsDense(Route route) { return route == Route::kInertiaTree || route == Route::kTensorTree; }

// Adds one measure to the estimate. `counts`: tolerances so far.
void AddMeasure(const OperatorShape& shape, const Measure& measure, bool by_svd,
                const EssOptions& options, double unit, int64_t& counts, EssEstimate& estimate) {
  const Route main = ChooseRoute(shape);
  const RouteCost& cost = CostOf(main);
  RouteSet& routes = estimate.routes.emplace_back();
  if (measure.kind == Kind::kCausal) {
    routes.Add(Route::kFactorSvd);
    const double state = static_cast<double>(shape.state_size.size);
    estimate.flops += 20 * static_cast<double>(shape.length) * state * state * state / kSvdSpeed;
    return;
  }
  if (by_svd) {  // Its work is ReferenceWork.
    routes.Add(options.horizon ? Route::kReferenceSvd : SvdRoute(main));
    return;
  }
  // A certificate counts on both sides of the threshold.
  const int passes = options.certify ? 2 : 1;
  switch (measure.kind) {
    case Kind::kFrobeniusNorm:
      routes.Add(Route::kPrefixSums);
      break;
    case Kind::kTolerance:
    case Kind::kHeadRelative:
      routes.Add(main);
      for (int pass = 0; pass < passes; ++pass) {
        estimate.flops += unit * (counts++ == 0 ? cost.pass : cost.further);
      }
      break;
    case Kind::kRelative:
      routes.Add(SpectralRoute(main));
      estimate.flops += unit * cost.spectral * passes;
      break;
    default:
      routes.Add(SpectralRoute(main));
      estimate.flops += unit * cost.spectral;
      break;
  }
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

EssEstimate EstimateEss(const OperatorShape& shape, std::span<const int64_t> positions,
                        std::span<const Measure> measures, const EssOptions& options) {
  EssEstimate estimate;
  const Route main = ChooseRoute(shape);
  const double length = static_cast<double>(shape.length);
  const double state = shape.state_size.kind == operators::StateSize::Kind::kGrowing
                           ? length
                           : static_cast<double>(std::max<int64_t>(shape.state_size.size, 1));
  const double unit = IsDense(main) ? length * length * length : length * state * state;
  estimate.flops = CostOf(main).prepare * unit;
  if (IsDense(main)) estimate.flops += kCopies * length * length;
  // Transitions without any structure are multiplied one by one.
  if (main == Route::kStateWindows && shape.class_name == "GeneralRecurrence") {
    estimate.flops += 3 * state * unit;
  }
  // T from its factors.
  if (IsDense(main) && shape.class_name != "DenseOperator") {
    estimate.flops += 2 * state * length * length;
  }
  int64_t counts = 0;
  for (const Measure& measure : measures) {
    const bool by_svd = ReferenceWork(shape, {&measure, 1}, options, positions) > 0;
    AddMeasure(shape, measure, by_svd, options, unit, counts, estimate);
  }
  // One decomposition at each position serves all measures that need it.
  estimate.flops += ReferenceWork(shape, measures, options, positions) / kSvdSpeed;
  const int64_t doubles = IsDense(main)
                              ? 4 * shape.length * shape.length
                              : 32 * shape.length * std::max<int64_t>(shape.state_size.size, 8);
  estimate.scratch_bytes = doubles * static_cast<int64_t>(sizeof(double));
  return estimate;
}

double FloatSpeed() {
  static const double speed = MeasureSpeed();
  return speed;
}

}  // namespace ess
