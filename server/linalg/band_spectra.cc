#include "server/linalg/band_spectra.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/band_counts.h"
#include "server/linalg/band_elimination.h"
#include "server/linalg/band_norms.h"
#include "server/linalg/entropy_rule.h"

namespace ess::linalg {
namespace {

// Squares of anything smaller, beside the largest norm of T, lose digits to underflow.
constexpr double kSmallestNorm = 1e-120;
// Positions with a smaller share of their window's largest norm are left out.
constexpr double kSmallestShare = 1e-40;
// A window is scaled when its largest norm is not within this factor of 1.
constexpr double kHarmlessScale = 0x1p20;
// Positions that share the shifts of an entropy have norms within this factor; beyond it the
// rule's error grows (entropy_rule.h).
constexpr double kScaleRatio = 4;
static_assert(kScaleRatio <= kLargestScaleRatio);

void MarkDoubtful(int64_t position, PositionCounts& counts) {
  if (counts.doubtful.empty()) counts.doubtful.resize(counts.counts.size(), 0);
  counts.doubtful[position] = 1;
}

// Leaves everything at a position to the caller.
void GiveUp(int64_t position, const SpectrumRequest& request, Spectrum& spectrum) {
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  if (request.entropies) spectrum.entropies[position] = kUnknown;
  if (request.spectral_norms) spectrum.spectral_norms[position] = kUnknown;
  for (PositionCounts& counts : spectrum.fraction_counts) MarkDoubtful(position, counts);
}

}  // namespace

// The positions of one window whose answers are wanted.
struct BandSpectra::WindowPositions {
  struct Entry {
    int64_t row;       // Within the window.
    int64_t position;  // Of T.
    double norm;       // ||H||_F in the window's units.
  };
  std::vector<Entry> entries;
  std::vector<int64_t> too_small;  // Positions of T.
  double unit = 1;
  double largest_norm = 0;  // In the window's units, as the next one.
  double floor_norm = 0;

  WindowPositions(const BandHalf& half, int64_t first, int64_t width,
                  std::span<const double> norms) {
    double largest = 0;
    const auto norm_at = [&](int64_t row) {
      const int64_t position = half.PositionOf(first + row);
      return position > 0 && position < half.length ? norms[position] : 0.0;
    };
    for (int64_t row = 0; row < width; ++row) largest = std::max(largest, norm_at(row));
    if (largest == 0) return;
    if (largest > kHarmlessScale || largest * kHarmlessScale < 1) {
      unit = std::ldexp(1.0, -std::ilogb(largest));
    }
    largest_norm = floor_norm = unit * largest;
    const double smallest = std::max(kSmallestNorm, kSmallestShare * largest);
    for (int64_t row = 0; row < width; ++row) {
      const double norm = norm_at(row);
      if (norm == 0) continue;
      const int64_t position = half.PositionOf(first + row);
      if (norm < smallest) {
        too_small.push_back(position);
        continue;
      }
      entries.push_back({row, position, unit * norm});
      floor_norm = std::min(floor_norm, unit * norm);
    }
  }
};

int64_t BandSpectra::WindowWidth(int64_t length) {
  return std::clamp<int64_t>(length / 128 * 8, 16, 128);
}

absl::Status BandSpectra::FillEntropies(const WindowPositions& positions, const BandWindow& window,
                                        Spectrum& spectrum, Arena& arena,
                                        const CancellationToken& cancellation) {
  std::vector<WindowPositions::Entry> entries = positions.entries;
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& x, const auto& y) { return x.norm > y.norm; });
  log_dets_.resize(kEntropyShifts * window.width);
  for (size_t begin = 0; begin < entries.size();) {
    const double scale = entries[begin].norm;
    for (int shift = 0; shift < kEntropyShifts; ++shift) {
      ESS_RETURN_IF_ERROR(WindowLogDeterminants(
          window, scale * kEntropyRule[shift].shift,
          std::span(log_dets_).subspan(shift * window.width, window.width), arena, cancellation));
    }
    size_t end = begin;
    for (; end < entries.size() && entries[end].norm * kScaleRatio >= scale; ++end) {
      const auto& [row, position, norm] = entries[end];
      std::array<double, kEntropyShifts> log_dets;
      for (int shift = 0; shift < kEntropyShifts; ++shift) {
        log_dets[shift] = log_dets_[shift * window.width + row];
      }
      const int64_t length = static_cast<int64_t>(spectrum.entropies.size());
      const EntropyEstimate estimate =
          EstimateEntropy(log_dets, norm / scale * (norm / scale),
                          static_cast<double>(std::min(position, length - position)));
      spectrum.entropies[position] = estimate.entropy;
      spectrum.entropy_errors[position] = estimate.error;
    }
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status BandSpectra::FillFractions(const WindowPositions& positions, const BandWindow& window,
                                        const SpectrumRequest& request, Spectrum& spectrum,
                                        Arena& arena, const CancellationToken& cancellation) {
  std::vector<uint8_t> wanted(window.width, 0);
  for (const auto& entry : positions.entries) wanted[entry.row] = 1;
  ESS_ASSIGN_OR_RETURN(const std::vector<double> sigma,
                       WindowSpectralNorms(window, wanted, arena, cancellation));
  if (request.spectral_norms) {
    for (const auto& entry : positions.entries) {
      spectrum.spectral_norms[entry.position] = sigma[entry.row] / positions.unit;
    }
  }
  for (size_t f = 0; f < request.fractions.size(); ++f) {
    PositionCounts& answer = spectrum.fraction_counts[f];
    std::vector<RowCount> rows;
    std::vector<int64_t> places;
    for (const auto& entry : positions.entries) {
      const double tau = request.fractions[f] * sigma[entry.row];
      if (tau > 0) {
        rows.push_back({.row = entry.row, .tau = tau});
        places.push_back(entry.position);
      } else {
        MarkDoubtful(entry.position, answer);
      }
    }
    ESS_RETURN_IF_ERROR(CountEachRow(window, positions.largest_norm, rows, arena, cancellation));
    for (size_t r = 0; r < rows.size(); ++r) {
      answer.counts[places[r]] = rows[r].count;
      if (rows[r].doubtful) MarkDoubtful(places[r], answer);
    }
  }
  return absl::OkStatus();
}

absl::Status BandSpectra::FillWindow(const WindowPositions& positions, const BandWindow& window,
                                     const SpectrumRequest& request, Spectrum& spectrum,
                                     Arena& arena, const CancellationToken& cancellation) {
  if (request.entropies) {
    ESS_RETURN_IF_ERROR(FillEntropies(positions, window, spectrum, arena, cancellation));
  }
  if (request.spectral_norms || !request.fractions.empty()) {
    ESS_RETURN_IF_ERROR(FillFractions(positions, window, request, spectrum, arena, cancellation));
  }
  return absl::OkStatus();
}

absl::Status BandSpectra::Compute(const BandHalf& half, std::span<const double> norms,
                                  const SpectrumRequest& request, Spectrum& spectrum, Arena& arena,
                                  const CancellationToken& cancellation) {
  ESS_CHECK(half.end % kBlock == 0 && half.end <= half.length);
  const int64_t widest = WindowWidth(half.length);
  const int64_t stride = StrideFor(half.end);
  const int64_t window_scratch =
      ReduceWindowScratch(half.end, widest) + WindowEliminationScratch(half.end, widest);
  const int64_t gram_scratch = StripCount(half.end) * kStrip * half.length;
  arena.Reserve(half.end * stride + std::max(window_scratch, gram_scratch));
  const ArenaScope all(arena);
  double* gram = arena.Allocate(half.end * stride);
  ESS_RETURN_IF_ERROR(AccumulateGram(half.matrix.Block(half.end, 0), half.length - half.end,
                                     half.end, false, gram, stride, arena, cancellation));
  for (int64_t last = half.end; last > 0;) {
    // The meters of small windows never come to a check of their own.
    ESS_RETURN_IF_ERROR(cancellation.Check());
    const int64_t first = std::max(last - widest, int64_t{0});
    const WindowPositions positions(half, first, last - first, norms);
    if (!positions.entries.empty()) {
      const ArenaScope scope(arena);
      const BandSource source{.matrix = half.matrix,
                              .gram = {gram, stride},
                              .unit = positions.unit,
                              .floor_norm = positions.floor_norm};
      ESS_ASSIGN_OR_RETURN(const BandWindow window,
                           ReduceWindow(source, first, last - first, arena, cancellation));
      ESS_RETURN_IF_ERROR(FillWindow(positions, window, request, spectrum, arena, cancellation));
    }
    for (const int64_t position : positions.too_small) GiveUp(position, request, spectrum);
    if (first > 0) {
      ESS_RETURN_IF_ERROR(AccumulateGram(half.matrix.Block(first, 0), last - first, first, true,
                                         gram, stride, arena, cancellation));
    }
    last = first;
  }
  return absl::OkStatus();
}

}  // namespace ess::linalg
