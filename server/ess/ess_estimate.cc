#include "server/ess/ess_estimate.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "server/base/cancellation.h"
#include "server/ess/ess_engine.h"
#include "server/linalg/inertia_tree.h"

namespace ess {
namespace {

using Kind = Measure::Kind;

// Costs of the parts of a route, in its unit of work: L^3 operations of a dense matrix, L S^2 of
// anything with a state (or window) of S. Measured (docs/benchmarks.md), relative to the tree.
struct RouteCost {
  Route route;
  bool cubic;          // The unit is L^3.
  double prepare;      // Once, with the largest sigma_1 of all positions.
  double first_count;  // The first tolerance.
  double further;      // Each further one.
  double fraction;     // Each relative tolerance, with sigma_1 at every position.
  double norms;        // sigma_1 at every position, if nothing else asks for it.
  double entropy;      // Entropies.
};

constexpr std::array kCosts = {
    RouteCost{Route::kInertiaTree, true, 0.6, 0.54, 0.29, 3, 3, 3.2},
    RouteCost{Route::kTensorTree, true, 3, 3, 2, 20, 20, 30},
    RouteCost{Route::kStateWindows, false, 60, 15, 15, 60, 60, 250},
    RouteCost{Route::kChannelWindows, false, 20, 8, 8, 45, 45, 45},
    RouteCost{Route::kLocalWindows, false, 20, 5, 5, 60, 60, 100},
};

// Below this the work for each position outweighs the arithmetic.
constexpr double kLeastState = 8;
// Operations for each entry of a dense matrix: making, checking and copying it.
constexpr double kDensePerEntry = 20;
// Speed of LibTorch's SVD as a share of the tree's.
constexpr double kSvdSpeed = 0.15;

const RouteCost& CostOf(Route main) {
  return *std::find_if(kCosts.begin(), kCosts.end(),
                       [main](const RouteCost& cost) { return cost.route == main; });
}

double StateOf(const OperatorOutline& outline) {
  const bool growing = outline.state_size.kind == operators::StateSize::Kind::kGrowing;
  return growing ? 1 : static_cast<double>(outline.state_size.size);
}

// In units of the route's work: what these measures add to the preparation.
double MeasureUnits(const RouteCost& cost, std::span<const Measure> measures,
                    const EssOptions& options) {
  const double passes = options.certify ? 2 : 1;
  double units = 0;
  bool counted = false;
  bool norms = false;
  bool fractions = false;
  bool entropy = false;
  for (const Measure& measure : measures) {
    switch (measure.kind) {
      case Kind::kTolerance:
      case Kind::kHeadRelative:
        units += (counted ? cost.further : cost.first_count) + (passes - 1) * cost.further;
        counted = true;
        break;
      case Kind::kRelative:
        units += passes * (fractions ? 0.3 : 1) * cost.fraction;
        fractions = true;
        break;
      case Kind::kEntropy:
        entropy = true;
        break;
      case Kind::kSpectralNorm:
        norms = true;
        break;
      case Kind::kFrobeniusNorm:
      case Kind::kSingularValues:
      case Kind::kCausal:
        break;
    }
  }
  if (entropy) units += cost.entropy;
  if (norms && !fractions) units += cost.norms;
  return units;
}

std::string RouteOf(const Measure& measure, Route main, bool by_svd) {
  if (by_svd) return std::string(RouteName(SvdRoute(main)));
  switch (measure.kind) {
    case Kind::kTolerance:
    case Kind::kHeadRelative:
      return std::string(RouteName(main));
    case Kind::kFrobeniusNorm:
      return std::string(RouteName(Route::kPrefixSums));
    case Kind::kCausal:
      return std::string(RouteName(Route::kFactorSvd));
    default:
      return std::string(RouteName(SpectralRoute(main)));
  }
}

double MeasureSpeed() {
  constexpr int64_t kLength = 256;
  std::vector<double> matrix(kLength * kLength);
  for (int64_t row = 0; row < kLength; ++row) {
    for (int64_t column = 0; column < row; ++column) {
      matrix[row * kLength + column] = 1 / (1.5 + static_cast<double>((row * 7 + column) % 11));
    }
  }
  const CancellationToken never;
  linalg::InertiaTree tree;
  double shortest = 1e9;
  for (int run = 0; run < 4; ++run) {
    const auto start = std::chrono::steady_clock::now();
    if (!tree.Load(matrix, kLength, never).ok() || !tree.CountAbove(0.01, 40, never).ok()) break;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    shortest = std::min(shortest, seconds.count());
  }
  return 0.54 * std::pow(kLength, 3) / shortest;
}

}  // namespace

EssEstimate EstimateEss(const OperatorOutline& outline, std::span<const int64_t> positions,
                        std::span<const Measure> measures, const EssOptions& options) {
  EssEstimate estimate;
  const double length = static_cast<double>(outline.length);
  const double state = StateOf(outline);
  const Route main = ChooseRoute(outline);
  const RouteCost& cost = CostOf(main);
  const double size = std::max(state, kLeastState);
  const double unit = cost.cubic ? length * length * length : length * size * size;
  const bool dense = cost.cubic || options.horizon.has_value();

  estimate.flops = cost.prepare * unit;
  if (dense) estimate.flops += (kDensePerEntry + 2 * state) * length * length;
  if (!options.horizon) estimate.flops += MeasureUnits(cost, measures, options) * unit;
  // One decomposition at each position serves all measures that need it.
  estimate.flops += ReferenceWork(outline, measures, options, positions) / kSvdSpeed;
  for (const Measure& measure : measures) {
    const bool by_svd = ReferenceWork(outline, {&measure, 1}, options, positions) > 0;
    const Route route = options.horizon ? Route::kInertiaTree : main;
    estimate.routes.push_back(RouteOf(measure, route, by_svd));
  }
  const double doubles = dense ? 4 * length * length : 20 * length * size;
  estimate.scratch_bytes = static_cast<int64_t>(doubles * sizeof(double));
  return estimate;
}

double FloatSpeed() {
  static const double speed = MeasureSpeed();
  return speed;
}

}  // namespace ess
