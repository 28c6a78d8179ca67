// Which property of H_i is wanted, and its spelling.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ess {

// One measure of H_i; docs/ess.md defines each, with its source.
struct Measure {
  enum class Kind {
    kTolerance,       // #{sigma > value}
    kRelative,        // #{sigma > value sigma_1(H_i)}
    kHeadRelative,    // #{sigma > value max_i sigma_1(H_i)}
    kEntropy,         // exp(-sum p ln p), p = sigma / sum sigma
    kSpectralNorm,    // sigma_1
    kFrobeniusNorm,   // ||H_i||_F
    kSingularValues,  // the leading `count`
    kCausal,          // numerical rank of a recurrence's past factor
  };
  Kind kind = Kind::kTolerance;
  double value = 0;   // kTolerance: finite, > 0. kRelative, kHeadRelative: in (0, 1).
  int64_t count = 0;  // kSingularValues: in [1, 1024].

  // Length of the extra last axis: `count` for kSingularValues, else 1.
  int64_t ValuesPerPosition() const { return kind == Kind::kSingularValues ? count : 1; }

  friend bool operator==(const Measure&, const Measure&) = default;
};

// Errors: kInvalidArgument  a value outside its range, naming measure, value and limit.
absl::Status ValidateMeasure(const Measure& measure);

// Reads "tolerance:1e-3", "entropy", "singular_values:8", ... and validates.
// Errors: kInvalidArgument  unknown kind (the message lists the kinds) or a bad value.
absl::StatusOr<Measure> ParseMeasure(std::string_view text);

// The canonical spelling: the kind and, in the style of printf's %g, the fewest digits that parse
// back to the same double: "tolerance:0.001", "tolerance:1e-05", "relative:0.5".
std::string FormatMeasure(const Measure& measure);

}  // namespace ess
