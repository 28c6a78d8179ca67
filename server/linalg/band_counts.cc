#include "server/linalg/band_counts.h"

#include <algorithm>
#include <limits>

#include "server/base/status_macros.h"
#include "server/linalg/band_elimination.h"

namespace ess::linalg {
namespace {

// A shared count costs as much as 2 or 3 single ones. It is given up when it decides no more rows
// than that, but not before both ends and the middle of the range were tried.
constexpr int kSharedCountsAtLeast = 3;
constexpr int64_t kWorthwhile = 2;

// How far beside tau the counts are that enclose an uncertain one, in uncertainties.
constexpr double kMargins = 4;
constexpr double kLargestUncertainty = 1e-2;

// A row with what is known about its count.
struct OpenRow {
  RowCount* answer;
  int32_t low = 0;
  int32_t high = std::numeric_limits<int32_t>::max();
  bool single_only = false;  // A shared count at its tau did not decide it.

  bool decided() const { return low == high; }
};

// `counts` are those of rows [begin, ...) at tau, exact for some threshold near it.
void Narrow(const BlockCounts& counts, double tau, int64_t begin, std::vector<OpenRow>& open) {
  for (OpenRow& row : open) {
    const int64_t index = row.answer->row - begin;
    if (index < 0 || index >= static_cast<int64_t>(counts.counts.size())) continue;
    const int32_t count = counts.counts[index];
    if (row.answer->tau <= tau * (1 - counts.uncertainty)) row.low = std::max(row.low, count);
    if (row.answer->tau >= tau * (1 + counts.uncertainty)) row.high = std::min(row.high, count);
  }
}

// Decides a row whose pivots were not stable: with exchanges, and where that is not enough by the
// counts a little below and above tau, which are the same unless a singular value is there.
absl::Status NarrowWithExchanges(const BandWindow& window, double norm, std::vector<OpenRow>& open,
                                 Arena& arena, const CancellationToken& cancellation) {
  const int64_t row = open.back().answer->row;
  const double asked = open.back().answer->tau;
  const auto narrow = [&](double tau) -> absl::StatusOr<double> {
    double sum = 0;
    ESS_ASSIGN_OR_RETURN(const BlockCounts counts,
                         CountWithNudges(tau, norm, {&sum, 1}, [&](double nudged_tau) {
                           return CountPosition(window, nudged_tau, row, sum, arena, cancellation);
                         }));
    Narrow(counts, tau, row, open);
    return counts.uncertainty;
  };
  ESS_ASSIGN_OR_RETURN(const double uncertainty, narrow(asked));
  if (uncertainty == 0 || uncertainty > kLargestUncertainty) return absl::OkStatus();
  for (const double side : {-1, 1}) {
    ESS_RETURN_IF_ERROR(narrow(asked * (1 + side * kMargins * uncertainty)).status());
  }
  return absl::OkStatus();
}

// Takes the decided rows out; returns how many.
int64_t Settle(std::vector<OpenRow>& open) {
  for (OpenRow& row : open) {
    if (row.decided()) row.answer->count = row.low;
  }
  return std::erase_if(open, [](const OpenRow& row) { return row.decided(); });
}

}  // namespace

absl::StatusOr<BlockCounts> CountRows(const BandWindow& window, double tau, double norm,
                                      int64_t begin, int64_t end, Arena& arena,
                                      const CancellationToken& cancellation) {
  ESS_RETURN_IF_ERROR(cancellation.Check());
  std::vector<double> sums(window.width);
  const auto run = [&](double nudged_tau) {
    return CountWindow(window, nudged_tau, begin, end, sums, arena, cancellation);
  };
  return CountWithNudges(tau, norm, std::span(sums).subspan(begin, end - begin), run);
}

absl::Status CountEachRow(const BandWindow& window, double norm, std::vector<RowCount>& rows,
                          Arena& arena, const CancellationToken& cancellation) {
  std::vector<OpenRow> open;
  for (RowCount& row : rows) open.push_back({&row});
  std::stable_sort(open.begin(), open.end(), [](const OpenRow& x, const OpenRow& y) {
    return x.answer->tau < y.answer->tau;
  });
  for (int shared = 0; static_cast<int64_t>(open.size()) > kWorthwhile; ++shared) {
    const size_t chosen = shared == 0 ? 0 : shared == 1 ? open.size() - 1 : open.size() / 2;
    if (open[chosen].single_only) break;
    open[chosen].single_only = true;
    const double tau = open[chosen].answer->tau;
    ESS_ASSIGN_OR_RETURN(const BlockCounts counts,
                         CountRows(window, tau, norm, 0, window.width, arena, cancellation));
    Narrow(counts, tau, 0, open);
    const int64_t settled = Settle(open);
    if (shared + 1 >= kSharedCountsAtLeast && settled <= kWorthwhile) break;
  }
  while (!open.empty()) {
    const RowCount asked = *open.back().answer;
    const int64_t begin = asked.row / kBlock * kBlock;
    ESS_ASSIGN_OR_RETURN(const BlockCounts counts, CountRows(window, asked.tau, norm, begin,
                                                             begin + kBlock, arena, cancellation));
    Narrow(counts, asked.tau, begin, open);
    if (!open.back().decided()) {
      ESS_RETURN_IF_ERROR(NarrowWithExchanges(window, norm, open, arena, cancellation));
    }
    if (!open.back().decided()) {
      open.back().answer->doubtful = true;
      open.pop_back();
    }
    Settle(open);
  }
  return absl::OkStatus();
}

}  // namespace ess::linalg
