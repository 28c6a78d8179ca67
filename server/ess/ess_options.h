// Options that hold for all measures of one computation.
#pragma once

#include <cstdint>
#include <optional>

namespace ess {

struct EssOptions {
  // H_i is cut to T[i : i + horizon, :i]. At least 1; absent: no cut.
  std::optional<int64_t> horizon;
  // Each count comes with whether it is certain; uncertain ones are recomputed by SVD.
  bool certify = false;

  friend bool operator==(const EssOptions&, const EssOptions&) = default;
};

}  // namespace ess
