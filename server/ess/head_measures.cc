#include "server/ess/head_measures.h"

#include <algorithm>
#include <cmath>

#include "server/base/status_macros.h"
#include "server/ess/reference_ess.h"

namespace ess {
namespace {

using Kind = Measure::Kind;

// A fast count is exact for a tolerance within this relative distance, sigma_1 being `ratio`
// tolerances (docs/ess.md); four times the error that is expected.
double FastGuard(double ratio) { return std::max(1e-9, 4e-16 * ratio * ratio); }

// The same of a count by SVD, whose singular values are right to about 1e-14 sigma_1.
double SvdGuard(double ratio) { return std::max(1e-9, 1e-14 * ratio); }

// Entropies estimate their error, pessimistically; beyond this they are not called certain.
constexpr double kCertainEntropyError = 1e-3;

bool IsCount(Kind kind) {
  return kind == Kind::kTolerance || kind == Kind::kRelative || kind == Kind::kHeadRelative;
}

template <typename Number>
std::vector<float> AtPositions(std::span<const Number> all, std::span<const int64_t> positions) {
  std::vector<float> selected;
  selected.reserve(positions.size());
  for (const int64_t position : positions) selected.push_back(static_cast<float>(all[position]));
  return selected;
}

}  // namespace

double NoiseFloor(const operators::SequenceOperator& op, double max_spectral_norm) {
  return op.feature_epsilon() * max_spectral_norm * std::sqrt(static_cast<double>(op.length()));
}

double NormAccuracy(std::span<const Measure> measures) {
  const bool exact = std::any_of(measures.begin(), measures.end(), [](const Measure& measure) {
    return measure.kind == Measure::Kind::kHeadRelative;
  });
  return exact ? linalg::kExactNorm : linalg::kNormMagnitude;
}

HeadMeasures::HeadMeasures(std::span<const Measure> measures, const EssOptions& options,
                           std::span<const int64_t> positions, double max_spectral_norm,
                           Route main_route)
    : measures_(measures),
      options_(options),
      positions_(positions),
      max_spectral_norm_(max_spectral_norm),
      main_route_(main_route) {
  if (options.horizon) return;
  for (size_t m = 0; m < measures.size(); ++m) {
    const Measure& measure = measures[m];
    switch (measure.kind) {
      case Kind::kTolerance:
        AddCount(m, /*relative=*/false, measure.value);
        break;
      case Kind::kHeadRelative:
        AddCount(m, /*relative=*/false, measure.value * max_spectral_norm);
        break;
      case Kind::kRelative:
        AddCount(m, /*relative=*/true, measure.value);
        break;
      case Kind::kEntropy:
        request_.entropies = true;
        break;
      case Kind::kSpectralNorm:
        request_.spectral_norms = true;
        break;
      case Kind::kFrobeniusNorm:
      case Kind::kSingularValues:
      case Kind::kCausal:
        break;
    }
  }
}

void HeadMeasures::AddCount(size_t measure, bool relative, double value) {
  std::vector<double>& asked = relative ? request_.fractions : request_.tolerances;
  const double norm = relative ? 1 : max_spectral_norm_;
  const bool by_svd = value < kSmallestFastTolerance * norm;
  counts_.push_back({measure, relative, asked.size(), value, by_svd});
  if (relative) request_.spectral_norms = true;
  // A place holder where SVD decides or where all blocks are zero: many heads may share a request.
  const double tau = std::max({value, kSmallestFastTolerance * norm, 1e-300});
  if (options_.certify) {
    const double guard = FastGuard(norm / tau);
    asked.push_back(tau * (1 - guard));
    asked.push_back(tau * (1 + guard));
  } else {
    asked.push_back(tau);
  }
}

bool HeadMeasures::Empty() const {
  return request_.tolerances.empty() && request_.fractions.empty() && !request_.entropies &&
         !request_.spectral_norms;
}

bool HeadMeasures::ReadCount(const Count& count, const linalg::Spectrum& spectrum, int64_t position,
                             float& value) const {
  if (count.by_svd) return false;
  if (count.relative) {
    const double tau = count.value * spectrum.spectral_norms[position];
    if (tau < kSmallestFastTolerance * max_spectral_norm_ && tau > 0) return false;
  }
  const auto& all = count.relative ? spectrum.fraction_counts : spectrum.tolerance_counts;
  const auto& low = all[count.index];
  const auto& high = all[options_.certify ? count.index + 1 : count.index];
  for (const linalg::PositionCounts* counts : {&low, &high}) {
    if (!counts->doubtful.empty() && counts->doubtful[position] != 0) return false;
  }
  if (low.counts[position] != high.counts[position]) return false;
  value = static_cast<float>(low.counts[position]);
  return true;
}

void HeadMeasures::ReadSpectrum(const linalg::Spectrum& spectrum, HeadEss& ess,
                                std::vector<std::vector<uint8_t>>& missing) const {
  for (const Count& count : counts_) {
    for (size_t p = 0; p < positions_.size(); ++p) {
      if (ReadCount(count, spectrum, positions_[p], ess.values[count.measure][p])) {
        missing[count.measure][p] = 0;
      }
    }
  }
  for (size_t m = 0; m < measures_.size(); ++m) {
    const Kind kind = measures_[m].kind;
    if (kind != Kind::kEntropy && kind != Kind::kSpectralNorm) continue;
    const auto& all = kind == Kind::kEntropy ? spectrum.entropies : spectrum.spectral_norms;
    for (size_t p = 0; p < positions_.size(); ++p) {
      if (!std::isfinite(all[positions_[p]])) continue;
      ess.values[m][p] = static_cast<float>(all[positions_[p]]);
      missing[m][p] = 0;
      if (kind == Kind::kEntropy && options_.certify) {
        ess.certain[m][p] = spectrum.entropy_errors[positions_[p]] <= kCertainEntropyError;
      }
    }
  }
}

bool HeadMeasures::IsCertain(const Measure& measure, std::span<const double> sigma) const {
  if (!IsCount(measure.kind) || sigma.empty() || sigma[0] == 0) return true;
  const double norm = measure.kind == Kind::kHeadRelative ? max_spectral_norm_ : sigma[0];
  const double tau = measure.kind == Kind::kTolerance ? measure.value : measure.value * norm;
  const double guard = SvdGuard(sigma[0] / tau) * tau;
  return std::none_of(sigma.begin(), sigma.end(),
                      [&](double value) { return std::abs(value - tau) <= guard; });
}

absl::Status HeadMeasures::FillBySvd(const std::vector<std::vector<uint8_t>>& missing,
                                     const HeadSources& sources,
                                     const CancellationToken& cancellation, HeadEss& ess) const {
  for (size_t p = 0; p < positions_.size(); ++p) {
    std::vector<double> sigma;
    bool known = false;
    for (size_t m = 0; m < measures_.size(); ++m) {
      if (missing[m][p] == 0) continue;
      if (!known) {
        ESS_RETURN_IF_ERROR(cancellation.Check());
        ESS_ASSIGN_OR_RETURN(sigma, sources.singular_values(positions_[p]));
        known = true;
      }
      const std::vector<float> value = EvaluateMeasure(measures_[m], sigma, max_spectral_norm_);
      std::copy(value.begin(), value.end(), ess.values[m].begin() + p * value.size());
      if (options_.certify) {
        std::fill_n(ess.certain[m].begin() + p * value.size(), value.size(),
                    IsCertain(measures_[m], sigma));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<HeadEss> HeadMeasures::Evaluate(const linalg::Spectrum* spectrum,
                                               const HeadSources& sources,
                                               const CancellationToken& cancellation) const {
  HeadEss ess;
  // [measure][position]: what is left to SVD. Nothing at position 0 or in a zero operator.
  std::vector<std::vector<uint8_t>> missing;
  for (const Measure& measure : measures_) {
    const size_t count = positions_.size() * measure.ValuesPerPosition();
    ess.values.emplace_back(count, 0.0f);
    if (options_.certify) ess.certain.emplace_back(count, 1);
    missing.emplace_back(positions_.size(), max_spectral_norm_ > 0);
    if (!positions_.empty() && positions_.front() == 0) missing.back().front() = 0;
  }
  for (size_t m = 0; m < measures_.size(); ++m) {
    if (measures_[m].kind == Kind::kCausal) {
      ESS_ASSIGN_OR_RETURN(const std::vector<int32_t> ranks, sources.causal_ranks());
      ess.values[m] = AtPositions<int32_t>(ranks, positions_);
    } else if (measures_[m].kind == Kind::kFrobeniusNorm && !options_.horizon) {
      ess.values[m] = AtPositions<double>(sources.frobenius_norms(), positions_);
    } else {
      continue;
    }
    std::fill(missing[m].begin(), missing[m].end(), 0);
  }
  if (spectrum != nullptr && max_spectral_norm_ > 0) ReadSpectrum(*spectrum, ess, missing);
  for (size_t m = 0; m < measures_.size(); ++m) ess.routes.push_back(RoutesOf(m, missing[m]));
  ESS_RETURN_IF_ERROR(FillBySvd(missing, sources, cancellation, ess));
  return ess;
}

RouteSet HeadMeasures::RoutesOf(size_t measure, std::span<const uint8_t> missing) const {
  RouteSet routes;
  const Kind kind = measures_[measure].kind;
  if (kind == Kind::kCausal) {
    routes.Add(Route::kFactorSvd);
    return routes;
  }
  const Route svd = options_.horizon ? Route::kReferenceSvd : SvdRoute(main_route_);
  const int64_t by_svd = std::count(missing.begin(), missing.end(), 1);
  const bool always_svd = options_.horizon || kind == Kind::kSingularValues;
  if (by_svd > 0 || always_svd) routes.Add(svd);
  // Position 0 needs nothing, and is no reason to name a route.
  const int64_t first = !positions_.empty() && positions_.front() == 0 ? 1 : 0;
  const int64_t rest = static_cast<int64_t>(positions_.size()) - first;
  if (always_svd || (by_svd > 0 && by_svd == rest)) return routes;
  if (kind == Kind::kFrobeniusNorm) {
    routes.Add(Route::kPrefixSums);
  } else {
    const bool counts_at_tau = kind == Kind::kTolerance || kind == Kind::kHeadRelative;
    routes.Add(counts_at_tau ? main_route_ : SpectralRoute(main_route_));
  }
  return routes;
}

}  // namespace ess
