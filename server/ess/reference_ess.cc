#include "server/ess/reference_ess.h"

#include <algorithm>
#include <cmath>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/reference_linalg.h"

namespace ess {
namespace {

double FrobeniusNorm(std::span<const double> singular_values) {
  if (singular_values.empty() || singular_values[0] == 0) return 0;
  const double scale = singular_values[0];  // Squares of the ratios neither overflow nor vanish.
  double sum = 0;
  for (const double sigma : singular_values) sum += (sigma / scale) * (sigma / scale);
  return scale * std::sqrt(sum);
}

bool NeedsHeadSpectralNorm(std::span<const Measure> measures) {
  return std::any_of(measures.begin(), measures.end(),
                     [](const Measure& m) { return m.kind == Measure::Kind::kHeadRelative; });
}

}  // namespace

int64_t CountAbove(std::span<const double> singular_values, double tau) {
  const double threshold = tau * (1 + kTieNudge);
  return std::count_if(singular_values.begin(), singular_values.end(),
                       [threshold](double sigma) { return sigma > threshold; });
}

double EntropyEss(std::span<const double> singular_values) {
  double sum = 0;
  for (const double sigma : singular_values) sum += sigma;
  if (sum == 0) return 0;
  double entropy = 0;
  for (const double sigma : singular_values) {
    const double p = sigma / sum;
    if (p > 0) entropy -= p * std::log(p);
  }
  return std::exp(entropy);
}

std::vector<float> EvaluateMeasure(const Measure& measure, std::span<const double> singular_values,
                                   double head_spectral_norm) {
  const double spectral_norm = singular_values.empty() ? 0 : singular_values[0];
  const auto one = [](double value) { return std::vector<float>{static_cast<float>(value)}; };
  switch (measure.kind) {
    case Measure::Kind::kTolerance:
      return one(CountAbove(singular_values, measure.value));
    case Measure::Kind::kRelative:
      return one(CountAbove(singular_values, measure.value * spectral_norm));
    case Measure::Kind::kHeadRelative:
      return one(CountAbove(singular_values, measure.value * head_spectral_norm));
    case Measure::Kind::kEntropy:
      return one(EntropyEss(singular_values));
    case Measure::Kind::kSpectralNorm:
      return one(spectral_norm);
    case Measure::Kind::kFrobeniusNorm:
      return one(FrobeniusNorm(singular_values));
    case Measure::Kind::kSingularValues: {
      std::vector<float> leading(measure.count, 0.0f);
      const size_t count = std::min(leading.size(), singular_values.size());
      std::copy_n(singular_values.begin(), count, leading.begin());
      return leading;
    }
    case Measure::Kind::kCausal:
      break;
  }
  ESS_CHECK(false && "the causal ESS is not a function of H_i");
  return {};
}

absl::StatusOr<std::vector<std::vector<float>>> ReferenceEss(std::span<const double> matrix,
                                                             int64_t length,
                                                             std::span<const int64_t> positions,
                                                             std::span<const Measure> measures,
                                                             const CancellationToken& cancellation,
                                                             std::optional<int64_t> horizon) {
  const auto singular_values = [&](int64_t position) {
    const int64_t rows = length - position;
    return linalg::BlockSingularValues(matrix, length, position,
                                       horizon ? std::min(*horizon, rows) : rows);
  };
  double head_spectral_norm = 0;
  if (NeedsHeadSpectralNorm(measures)) {
    for (int64_t position = 1; position < length; ++position) {
      ESS_RETURN_IF_ERROR(cancellation.Check());
      ESS_ASSIGN_OR_RETURN(const std::vector<double> sigma, singular_values(position));
      head_spectral_norm = std::max(head_spectral_norm, sigma[0]);
    }
  }
  std::vector<std::vector<float>> values(measures.size());
  for (const int64_t position : positions) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    ESS_ASSIGN_OR_RETURN(const std::vector<double> sigma, singular_values(position));
    for (size_t m = 0; m < measures.size(); ++m) {
      const std::vector<float> value = EvaluateMeasure(measures[m], sigma, head_spectral_norm);
      values[m].insert(values[m].end(), value.begin(), value.end());
    }
  }
  return values;
}

}  // namespace ess
