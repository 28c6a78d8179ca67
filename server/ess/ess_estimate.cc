#include "server/ess/ess_estimate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <string_view>
#include <utility>

#include "server/base/log.h"
#include "server/base/serial_torch.h"
#include "server/ess/ess_engine.h"
#include "server/ess/head_measures.h"

namespace ess {
namespace {

using Kind = Measure::Kind;

// Work in units of FloatSpeed(), as a polynomial of the length L and the state or band n; dense
// routes have n = L.
struct Work {
  double cubic;   // Times L n^2,
  double square;  // and times L n.
};

// What a main route costs for one head of a class. tests/benchmarks/estimate_benchmark.cc prints
// what a line promises beside what happens.
struct RouteCost {
  Route route;
  std::string_view class_name;  // Empty: all classes without a line above.
  Work prepare;                 // Once, the magnitude of max_i sigma_1(H_i) included.
  Work exact_norm;              // Once more, where counts are relative to it.
  Work pass;                    // Counts at a first tolerance,
  Work further;                 // and at each further one.
  Work entropy;
  Work relative;  // Counts relative to sigma_1(H_i), each fraction; or these norms.
};

// One line for each route and class: prepare, exact_norm, pass, further, entropy, relative.
// clang-format off
constexpr std::array kCosts = {
    RouteCost{Route::kInertiaTree, "Convolution",
              {0.75, 300}, {1.2, 0}, {0.4, 20}, {0.18, 10}, {1.4, 700}, {1.5, 1500}},
    RouteCost{Route::kInertiaTree, "",
              {0.62, 27}, {0.3, 20}, {0.41, 33}, {0.33, 26}, {2.2, 1300}, {1.6, 1300}},
    RouteCost{Route::kTensorTree, "", {4, 300}, {2, 300}, {2, 300}, {2, 300}, {40, 3000}, {60, 3000}},
    RouteCost{Route::kStateWindows, "DeltaRecurrence",
              {20, 1500}, {2, 1000}, {1.5, 550}, {1.5, 590}, {23, 11000}, {80, 10000}},
    RouteCost{Route::kStateWindows, "DiagonalPlusRankOne",
              {80, 3500}, {2, 1000}, {1.5, 550}, {1.5, 590}, {23, 11000}, {80, 12000}},
    RouteCost{Route::kStateWindows, "GeneralRecurrence",
              {200, 0}, {2, 1000}, {1.5, 550}, {1.5, 590}, {23, 8500}, {80, 8000}},
    RouteCost{Route::kStateWindows, "",
              {12, 2300}, {2, 1000}, {1.5, 600}, {1.5, 590}, {23, 12200}, {80, 13000}},
    RouteCost{Route::kChannelWindows, "", {22, 390}, {20, 300}, {5, 80}, {6, 95}, {75, 1200}, {70, 1150}},
    RouteCost{Route::kLocalWindows, "", {6, 800}, {3, 400}, {1.9, 235}, {1, 140}, {32, 4100}, {90, 11400}},
};
// clang-format on

// T from its factors, for the dense routes: operations for each entry of T and each state.
struct FormingCost {
  std::string_view class_name;
  double per_state;
};

constexpr std::array kForming = {
    FormingCost{"DiagonalRecurrence", 19}, FormingCost{"SelectiveScan", 19},
    FormingCost{"DeltaRecurrence", 46},    FormingCost{"DiagonalPlusRankOne", 46},
    FormingCost{"GeneralRecurrence", 46},
};

// Scratch of one thread, in float64 numbers.
struct RouteMemory {
  Route route;
  std::string_view class_name;  // Empty: all classes without a line above.
  double length;                // Times L n,
  double square;                // and n^2.
  double spectral;              // Times L n, in addition for entropies and relative counts.
};

constexpr std::array kMemory = {
    RouteMemory{Route::kInertiaTree, "", 3, 0, 0.5},
    RouteMemory{Route::kTensorTree, "", 8, 0, 0},
    RouteMemory{Route::kStateWindows, "DiagonalPlusRankOne", 30, 0, 0},
    RouteMemory{Route::kStateWindows, "", 19, 0, 0},
    RouteMemory{Route::kChannelWindows, "", 52, 0, 0},
    RouteMemory{Route::kLocalWindows, "", 1.35, 8, 0},
};

// Speed of LibTorch's SVD as a share of its matrix product's.
constexpr double kSvdSpeed = 0.4;
// A product of matrices of this size is long enough for the clock.
constexpr int64_t kProbeSize = 384;
constexpr int kProbes = 3;

template <typename Table>
const auto& LineOf(const Table& table, Route route, std::string_view class_name) {
  const auto* found = std::find_if(table.begin(), table.end(), [&](const auto& line) {
    return line.route == route && (line.class_name == class_name || line.class_name.empty());
  });
  ESS_CHECK(found != table.end());
  return *found;
}

bool IsDense(Route route) { return route == Route::kInertiaTree || route == Route::kTensorTree; }

// Adds up the work for one shape.
class Estimator {
 public:
  Estimator(const OperatorShape& shape, const EssOptions& options)
      : shape_(shape),
        options_(options),
        // As EssEngine::Compute: a cut block goes the dense way.
        main_(options.horizon ? Route::kInertiaTree : ChooseRoute(shape)),
        cost_(LineOf(kCosts, main_, shape.class_name)),
        length_(static_cast<double>(shape.length)),
        state_(StateOf(shape)),
        size_(IsDense(main_) ? length_ : state_) {}

  EssEstimate Estimate(std::span<const int64_t> positions, std::span<const Measure> measures) {
    Add(cost_.prepare);
    if (NormAccuracy(measures) == linalg::kExactNorm) Add(cost_.exact_norm);
    if (IsDense(main_)) estimate_.flops += FormingWork();
    bool spectral = false;
    for (const Measure& measure : measures) {
      const bool by_svd = ReferenceWork(shape_, {&measure, 1}, options_, positions) > 0;
      spectral = AddMeasure(measure, by_svd) || spectral;
    }
    // One decomposition at each position serves all measures that need it.
    estimate_.flops += ReferenceWork(shape_, measures, options_, positions) / kSvdSpeed;
    const RouteMemory& memory = LineOf(kMemory, main_, shape_.class_name);
    const double numbers = length_ * size_ * (memory.length + (spectral ? memory.spectral : 0)) +
                           memory.square * size_ * size_;
    estimate_.scratch_bytes = static_cast<int64_t>(numbers * sizeof(double));
    return std::move(estimate_);
  }

 private:
  static double StateOf(const OperatorShape& shape) {
    if (shape.state_size.kind == operators::StateSize::Kind::kGrowing) {
      return static_cast<double>(shape.length);
    }
    return static_cast<double>(std::max<int64_t>(shape.state_size.size, 1));
  }

  void Add(const Work& work) {
    estimate_.flops += length_ * size_ * (work.cubic * size_ + work.square);
  }

  double FormingWork() const {
    for (const FormingCost& forming : kForming) {
      if (forming.class_name == shape_.class_name) {
        return forming.per_state * state_ * length_ * length_;
      }
    }
    return 0;
  }

  // Whether it needs more than counts at tolerances.
  bool AddMeasure(const Measure& measure, bool by_svd) {
    RouteSet& routes = estimate_.routes.emplace_back();
    if (measure.kind == Kind::kCausal) {
      routes.Add(Route::kFactorSvd);
      estimate_.flops += 20 * length_ * state_ * state_ * state_ / kSvdSpeed;
      return false;
    }
    if (by_svd) {  // Its work is ReferenceWork.
      routes.Add(options_.horizon ? Route::kReferenceSvd : SvdRoute(main_));
      return false;
    }
    // A certificate counts on both sides of the threshold.
    const int passes = options_.certify ? 2 : 1;
    switch (measure.kind) {
      case Kind::kFrobeniusNorm:
        routes.Add(Route::kPrefixSums);
        return false;
      case Kind::kTolerance:
      case Kind::kHeadRelative:
        routes.Add(main_);
        for (int pass = 0; pass < passes; ++pass) Add(counts_++ == 0 ? cost_.pass : cost_.further);
        return false;
      case Kind::kEntropy:
        routes.Add(SpectralRoute(main_));
        Add(cost_.entropy);
        return true;
      default:
        routes.Add(SpectralRoute(main_));
        for (int pass = 0; pass < passes; ++pass) Add(cost_.relative);
        return true;
    }
  }

  const OperatorShape& shape_;
  const EssOptions& options_;
  const Route main_;
  const RouteCost& cost_;
  const double length_;
  const double state_;
  const double size_;   // n.
  int64_t counts_ = 0;  // Passes at tolerances so far.
  EssEstimate estimate_;
};

double MeasureSpeed() {
  const SerialTorch serial;
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
  return Estimator(shape, options).Estimate(positions, measures);
}

double FloatSpeed() {
  static const double speed = MeasureSpeed();
  return speed;
}

}  // namespace ess
