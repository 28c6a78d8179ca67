// The state a layer could hold: theoretically realizable state-size (TSS).
// Source: Parnichkun et al. 2025 (arXiv:2504.19561), section 3 and appendix D.2.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace ess::operators {

// TSS as a function of the position: 0 at position 0; from 1 on, see Kind.
struct StateSize {
  enum class Kind {
    kGrowing,      // Full attention: i.
    kGrowingUpTo,  // A window of w: min(i, w - 1); K taps: min(i, K - 1). `size` is the cap.
    kConstant,     // A recurrence of state n, complex states counted twice: `size`.
  };
  Kind kind = Kind::kGrowing;
  int64_t size = 0;

  static StateSize Growing() { return {Kind::kGrowing, 0}; }
  static StateSize GrowingUpTo(int64_t cap) { return {Kind::kGrowingUpTo, cap}; }
  static StateSize Constant(int64_t size) { return {Kind::kConstant, size}; }

  int64_t At(int64_t position) const {
    if (position == 0) return 0;
    if (kind == Kind::kGrowing) return position;
    return kind == Kind::kConstant ? size : std::min(position, size);
  }

  friend bool operator==(const StateSize&, const StateSize&) = default;
};

}  // namespace ess::operators
