// Which way an operator goes to its singular values, and what that way is called in answers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "server/operators/sequence_operator.h"

namespace ess {

// docs/ess.md tells each.
enum class Route : uint32_t {
  kInertiaTree = 1 << 0,     // Dense, counts: all positions by one tree.
  kBandWindows = 1 << 1,     // Dense, the rest: windows on a band matrix.
  kTensorTree = 1 << 2,      // Dense on an accelerator: the tree in batched tensor operations.
  kStateWindows = 1 << 3,    // Recurrences: windows between triangular factors of the state.
  kChannelWindows = 1 << 4,  // Many channels of small state: one channel per vector lane.
  kLocalWindows = 1 << 5,    // Bands and short filters: windows with nothing in common.
  kPrefixSums = 1 << 6,      // ||H_i||_F from sums of squares.
  kFactorSvd = 1 << 7,       // An SVD of a small equivalent of H_i at a position.
  kReferenceSvd = 1 << 8,    // An SVD of H_i at a position.
};

// Routes that took part in one measure.
class RouteSet {
 public:
  void Add(Route route) { bits_ |= static_cast<uint32_t>(route); }
  void Add(RouteSet routes) { bits_ |= routes.bits_; }
  bool Contains(Route route) const { return (bits_ & static_cast<uint32_t>(route)) != 0; }
  // "inertia_tree", or several joined by '+' in the order of Route.
  std::string Name() const;

  friend bool operator==(const RouteSet&, const RouteSet&) = default;

 private:
  uint32_t bits_ = 0;
};

// The name of one route.
std::string_view RouteName(Route route);

// What the choice depends on.
struct OperatorShape {
  std::string_view class_name;
  int64_t head_count = 0;
  int64_t length = 0;
  operators::StateSize state_size;
  bool has_channels = true;  // Whether it is a channel recurrence, if its class can be one.
  bool on_accelerator = false;
};

OperatorShape ShapeOf(const operators::SequenceOperator& op);

// The main route of an operator: the one that counts at a tolerance. The table is in route.cc.
Route ChooseRoute(const OperatorShape& shape);

// The routes of everything else, given the main one.
Route SpectralRoute(Route main);  // entropy, relative, spectral_norm.
Route SvdRoute(Route main);       // singular_values, and single positions.

}  // namespace ess
