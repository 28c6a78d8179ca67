// Counts at the positions of a reduced window (band_window.h), each at a tolerance of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/band_window.h"
#include "server/linalg/nudged_counts.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// What is asked at one row of the window, and the answer.
struct RowCount {
  int64_t row = 0;
  double tau = 0;  // In the window's units.
  int32_t count = 0;
  bool doubtful = false;  // The pivots were not stable: the count may be wrong.
};

// counts[i] = #{sigma(H) > tau (1 + 1e-11)} for the rows [begin, end) of the window, multiples
// of 8. `norm`: the largest ||H||_F of the window, in its units. Errors: kCancelled,
// kDeadlineExceeded.
absl::StatusOr<BlockCounts> CountRows(const BandWindow& window, double tau, double norm,
                                      int64_t begin, int64_t end, Arena& arena,
                                      const CancellationToken& cancellation);

// Fills the answers. The count at one tau bounds all counts of the window at smaller and larger
// ones, so a few shared counts decide most rows; the rest are counted one by one.
absl::Status CountEachRow(const BandWindow& window, double norm, std::vector<RowCount>& rows,
                          Arena& arena, const CancellationToken& cancellation);

}  // namespace ess::linalg
