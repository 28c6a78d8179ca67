#include "server/ess/head_ess.h"

#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/ess/ess_engine.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/block_norms.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/sequence_operator.h"

namespace ess {
namespace {

using Kind = Measure::Kind;

absl::Status CheckFinite(std::span<const double> matrix, int64_t length, int64_t head) {
  for (int64_t x = 0; x < static_cast<int64_t>(matrix.size()); ++x) {
    if (std::isfinite(matrix[x])) [[likely]]
      continue;
    return absl::InternalError(fmt::format("operator of head {}: entry [{}, {}] is {}", head,
                                           x / length, x % length, matrix[x]));
  }
  return absl::OkStatus();
}

// Divides by a power of two, which rounds nothing: later squares can neither overflow nor vanish.
void Normalize(int64_t length, HeadWork& work) {
  double largest = 0;
  for (int64_t row = 1; row < length; ++row) {
    for (int64_t column = 0; column < row; ++column) {
      largest = std::max(largest, std::abs(work.matrix[row * length + column]));
    }
  }
  int exponent = 0;
  std::frexp(largest, &exponent);
  exponent = std::clamp(exponent, -1000, 1000);  // Keeps both powers finite.
  work.scale = std::ldexp(1.0, exponent);
  const double inverse = std::ldexp(1.0, -exponent);
  for (int64_t row = 1; row < length; ++row) {
    for (int64_t column = 0; column < row; ++column) work.matrix[row * length + column] *= inverse;
  }
}

absl::StatusOr<double> HeadSpectralNorm(int64_t length, HeadWork& work,
                                        const CancellationToken& cancellation) {
  absl::StatusOr<double> norm =
      linalg::MaxBlockSpectralNorm(work.matrix, length, work.tree, cancellation);
  if (norm.ok() || norm.status().code() != absl::StatusCode::kAborted) return norm;
  double largest = 0;
  for (int64_t position = 1; position < length; ++position) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    ESS_ASSIGN_OR_RETURN(const std::vector<double> sigma,
                         linalg::BlockSingularValues(work.matrix, length, position));
    largest = std::max(largest, sigma[0]);
  }
  return largest;
}

absl::Status PrepareHead(const operators::SequenceOperator& op, int64_t head, HeadWork& work,
                         const CancellationToken& cancellation) {
  const int64_t length = op.length();
  work.matrix.resize(length * length);
  op.DenseHead(head, work.matrix);
  ESS_RETURN_IF_ERROR(cancellation.Check());
  ESS_RETURN_IF_ERROR(CheckFinite(work.matrix, length, head));
  Normalize(length, work);
  ESS_RETURN_IF_ERROR(work.tree.Load(work.matrix, length, cancellation));
  ESS_ASSIGN_OR_RETURN(work.spectral_norm, HeadSpectralNorm(length, work, cancellation));
  return absl::OkStatus();
}

// Counts where the tree alone is not sure: it also counts a little above and a little below tau.
// Where these agree the count is proved; SVD decides at the few other positions.
absl::StatusOr<std::vector<int32_t>> CertifiedCounts(double tau, double uncertainty,
                                                     std::span<const int64_t> positions,
                                                     HeadWork& work,
                                                     const CancellationToken& cancellation) {
  const double margin = 4 * uncertainty;
  ESS_ASSIGN_OR_RETURN(const linalg::BlockCounts low,
                       work.tree.CountAbove(tau * (1 - margin), work.spectral_norm, cancellation));
  ESS_ASSIGN_OR_RETURN(linalg::BlockCounts high,
                       work.tree.CountAbove(tau * (1 + margin), work.spectral_norm, cancellation));
  if (std::max(low.uncertainty, high.uncertainty) > margin / 2) {
    return absl::AbortedError("the inertia tree is not accurate around the tolerance either");
  }
  for (const int64_t position : positions) {
    if (low.counts[position] == high.counts[position]) continue;
    ESS_RETURN_IF_ERROR(cancellation.Check());
    ESS_ASSIGN_OR_RETURN(const std::vector<double> sigma,
                         linalg::BlockSingularValues(work.matrix, work.tree.length(), position));
    high.counts[position] = static_cast<int32_t>(CountAbove(sigma, tau));
  }
  return std::move(high.counts);
}

// Counts by the tree, right at `positions`; kAborted when they need the reference.
absl::StatusOr<std::vector<int32_t>> TreeCounts(double tau, std::span<const int64_t> positions,
                                                HeadWork& work,
                                                const CancellationToken& cancellation) {
  if (work.spectral_norm == 0) return std::vector<int32_t>(work.tree.length(), 0);
  if (tau < kSmallestTreeTolerance * work.spectral_norm) {
    return absl::AbortedError("the tolerance is below the accuracy of the inertia tree");
  }
  ESS_ASSIGN_OR_RETURN(linalg::BlockCounts result,
                       work.tree.CountAbove(tau, work.spectral_norm, cancellation));
  if (result.uncertainty == 0) return std::move(result.counts);
  return CertifiedCounts(tau, result.uncertainty, positions, work, cancellation);
}

template <typename Number>
std::vector<float> AtPositions(std::span<const Number> all, std::span<const int64_t> positions,
                               double scale) {
  std::vector<float> selected;
  selected.reserve(positions.size());
  for (const int64_t position : positions) {
    selected.push_back(static_cast<float>(scale * all[position]));
  }
  return selected;
}

// Measures that are left to the reference, as measures of the normalized matrix.
struct ReferencePart {
  std::vector<size_t> indices;  // Into the request's measures.
  std::vector<Measure> measures;

  void Add(size_t index, const Measure& measure) {
    indices.push_back(index);
    measures.push_back(measure);
  }
};

bool HasUnitOfOperator(Kind kind) {
  return kind == Kind::kSpectralNorm || kind == Kind::kSingularValues;
}

}  // namespace

absl::StatusOr<HeadEss> ComputeHead(const operators::SequenceOperator& op, int64_t head,
                                    std::span<const int64_t> positions,
                                    std::span<const Measure> measures, HeadWork& work,
                                    const CancellationToken& cancellation) {
  ESS_RETURN_IF_ERROR(PrepareHead(op, head, work, cancellation));
  const int64_t length = op.length();
  HeadEss result{.values = std::vector<std::vector<float>>(measures.size()),
                 .by_reference = std::vector<bool>(measures.size(), false),
                 .noise_floor = op.feature_epsilon() * work.spectral_norm * work.scale *
                                std::sqrt(static_cast<double>(length))};
  ReferencePart reference;
  for (size_t m = 0; m < measures.size(); ++m) {
    const Measure& measure = measures[m];
    if (measure.kind == Kind::kFrobeniusNorm) {
      const std::vector<double> norms = linalg::BlockFrobeniusNorms(work.matrix, length);
      result.values[m] = AtPositions<double>(norms, positions, work.scale);
    } else if (NeedsReference(measure)) {
      reference.Add(m, measure);
    } else {
      const double tau = measure.kind == Kind::kTolerance ? measure.value / work.scale
                                                          : measure.value * work.spectral_norm;
      const absl::StatusOr<std::vector<int32_t>> counts =
          TreeCounts(tau, positions, work, cancellation);
      if (counts.ok()) {
        result.values[m] = AtPositions<int32_t>(*counts, positions, 1);
      } else if (counts.status().code() == absl::StatusCode::kAborted) {
        reference.Add(m, {.kind = Kind::kTolerance, .value = tau});
      } else {
        return counts.status();
      }
    }
  }
  if (reference.indices.empty()) return result;

  ESS_ASSIGN_OR_RETURN(
      std::vector<std::vector<float>> values,
      ReferenceEss(work.matrix, length, positions, reference.measures, cancellation));
  for (size_t r = 0; r < reference.indices.size(); ++r) {
    if (HasUnitOfOperator(reference.measures[r].kind)) {
      for (float& value : values[r]) value = static_cast<float>(value * work.scale);
    }
    result.values[reference.indices[r]] = std::move(values[r]);
    result.by_reference[reference.indices[r]] = true;
  }
  return result;
}

}  // namespace ess
