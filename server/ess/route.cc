#include "server/ess/route.h"

#include <array>
#include <cstdlib>
#include <limits>

namespace ess {
namespace {

struct NamedRoute {
  Route route;
  std::string_view name;
};

constexpr std::array kNames = {
    NamedRoute{Route::kInertiaTree, "inertia_tree"},
    NamedRoute{Route::kBandWindows, "band_windows"},
    NamedRoute{Route::kTensorTree, "tensor_tree"},
    NamedRoute{Route::kStateWindows, "state_windows"},
    NamedRoute{Route::kChannelWindows, "channel_windows"},
    NamedRoute{Route::kLocalWindows, "local_windows"},
    NamedRoute{Route::kPrefixSums, "prefix_sums"},
    NamedRoute{Route::kFactorSvd, "factor_svd"},
    NamedRoute{Route::kReferenceSvd, "reference_svd"},
};

// A class's own route, and when it beats forming T and the dense one.
struct NativeRoute {
  std::string_view class_name;
  Route route;
  int64_t lengths_per_state;  // From length >= lengths_per_state * state on,
  int64_t heads;              // from this many heads on,
  int64_t largest_state;      // and up to this state.
};

constexpr int64_t kAny = std::numeric_limits<int64_t>::max();

// In order of preference. The lengths per state of state windows are measured for one tolerance
// (recurrent_benchmark break-even; the table is in docs/ess.md): from 3 states on they are faster,
// a little later with few states. Entropies break even at 4 and fractions of sigma_1 at 6 states.
constexpr std::array kNativeRoutes = {
    NativeRoute{"SelectiveScan", Route::kChannelWindows, 0, 1, 32},
    NativeRoute{"SelectiveScan", Route::kStateWindows, 4, 1, kAny},
    NativeRoute{"DiagonalRecurrence", Route::kChannelWindows, 2, 4, 32},
    NativeRoute{"DiagonalRecurrence", Route::kStateWindows, 4, 1, kAny},
    NativeRoute{"DeltaRecurrence", Route::kStateWindows, 4, 1, kAny},
    NativeRoute{"DiagonalPlusRankOne", Route::kStateWindows, 4, 1, kAny},
    NativeRoute{"GeneralRecurrence", Route::kStateWindows, 2, 1, kAny},
    NativeRoute{"BandedOperator", Route::kLocalWindows, 2, 1, kAny},
    NativeRoute{"Convolution", Route::kLocalWindows, 2, 1, kAny},
};

}  // namespace

std::string_view RouteName(Route route) {
  for (const NamedRoute& named : kNames) {
    if (named.route == route) return named.name;
  }
  std::abort();  // Every route has its line in the table.
}

std::string RouteSet::Name() const {
  std::string name;
  for (const NamedRoute& named : kNames) {
    if (!Contains(named.route)) continue;
    if (!name.empty()) name += "+";
    name += named.name;
  }
  return name;
}

OperatorShape ShapeOf(const operators::SequenceOperator& op) {
  return {.class_name = op.class_name(),
          .head_count = op.head_count(),
          .length = op.length(),
          .state_size = op.state_size(),
          .has_channels = op.channel_recurrence() != nullptr,
          .on_accelerator = op.dense_maps() != nullptr && !op.dense_maps()->is_cpu()};
}

Route ChooseRoute(const OperatorShape& shape) {
  if (shape.on_accelerator) return Route::kTensorTree;
  if (shape.state_size.kind == operators::StateSize::Kind::kGrowing) return Route::kInertiaTree;
  const int64_t state = shape.state_size.size;
  for (const NativeRoute& native : kNativeRoutes) {
    if (native.route == Route::kChannelWindows && !shape.has_channels) continue;
    if (native.class_name == shape.class_name && state <= native.largest_state &&
        shape.head_count >= native.heads && shape.length >= native.lengths_per_state * state) {
      return native.route;
    }
  }
  return Route::kInertiaTree;
}

Route SpectralRoute(Route main) { return main == Route::kInertiaTree ? Route::kBandWindows : main; }

Route SvdRoute(Route main) {
  const bool dense = main == Route::kInertiaTree || main == Route::kTensorTree;
  return dense ? Route::kReferenceSvd : Route::kFactorSvd;
}

}  // namespace ess
