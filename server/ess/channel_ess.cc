#include "server/ess/channel_ess.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/operators/sequence_operator.h"

namespace ess {
namespace {

// One lane of a row-major [.., L, lanes] array, from entry `row` * L on.
template <typename To, typename From>
std::vector<To> Lane(const std::vector<From>& all, int64_t row, int64_t length, int64_t lane,
                     int64_t lanes) {
  std::vector<To> one(length);
  for (int64_t i = 0; i < length; ++i) {
    one[i] = static_cast<To>(all[(row * length + i) * lanes + lane]);
  }
  return one;
}

linalg::Spectrum LaneSpectrum(const linalg::ChannelAnswers& answers,
                              const linalg::SpectrumRequest& request, int64_t length, int64_t lane,
                              int64_t lanes) {
  linalg::Spectrum spectrum;
  for (size_t t = 0; t < request.tolerances.size(); ++t) {
    spectrum.tolerance_counts.push_back(
        {.counts = Lane<int32_t>(answers.tolerance_counts, t, length, lane, lanes),
         .doubtful = {}});
  }
  for (size_t f = 0; f < request.fractions.size(); ++f) {
    spectrum.fraction_counts.push_back(
        {.counts = Lane<int32_t>(answers.fraction_counts, f, length, lane, lanes), .doubtful = {}});
  }
  if (request.spectral_norms) {
    spectrum.spectral_norms = Lane<double>(answers.spectral_norms, 0, length, lane, lanes);
  }
  if (request.entropies) {
    spectrum.entropies = Lane<double>(answers.entropies, 0, length, lane, lanes);
    spectrum.entropy_errors = Lane<double>(answers.entropy_errors, 0, length, lane, lanes);
  }
  return spectrum;
}

// The requests of all heads in one: they differ in their tolerances only.
linalg::ChannelRequest JoinRequests(std::span<const HeadMeasures> plans,
                                    std::span<const int64_t> heads, int64_t lanes) {
  const linalg::SpectrumRequest& first = plans.front().request();
  linalg::ChannelRequest joined{.tolerances = {},
                                .fractions = first.fractions,
                                .spectral_norms = first.spectral_norms,
                                .entropies = first.entropies};
  joined.tolerances.assign(first.tolerances.size() * lanes, 0.0);
  for (size_t p = 0; p < plans.size(); ++p) {
    const std::vector<double>& tolerances = plans[p].request().tolerances;
    for (size_t t = 0; t < tolerances.size(); ++t) {
      joined.tolerances[t * lanes + heads[p] % lanes] = tolerances[t];
    }
  }
  // Lanes that nobody asks for count at some tolerance that another lane has.
  std::vector<bool> asked(lanes, false);
  for (const int64_t head : heads) asked[head % lanes] = true;
  for (int64_t lane = 0; lane < lanes; ++lane) {
    for (size_t t = 0; t < first.tolerances.size() && !asked[lane]; ++t) {
      joined.tolerances[t * lanes + lane] = first.tolerances[t];
    }
  }
  return joined;
}

absl::Status CheckNorms(std::span<const double> norms, std::span<const int64_t> heads) {
  const auto lanes = static_cast<int64_t>(norms.size());
  for (const int64_t head : heads) {
    if (!std::isfinite(norms[head % lanes])) {
      return absl::InternalError(fmt::format("operator of head {}: overflows float64", head));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<HeadEss>> ComputeChannels(const operators::SequenceOperator& op,
                                                     std::span<const int64_t> heads,
                                                     std::span<const int64_t> positions,
                                                     std::span<const Measure> measures,
                                                     const EssOptions& options,
                                                     linalg::ChannelSpectra& spectra,
                                                     const CancellationToken& cancellation) {
  const int64_t lanes = spectra.lanes();
  const int64_t length = op.length();
  const int64_t first = heads.front() / lanes * lanes;
  ESS_CHECK(heads.back() < first + lanes);
  ESS_RETURN_IF_ERROR(spectra.Load(*op.channel_recurrence(), first, cancellation));
  // What is asked depends on the largest norms only sometimes; else one pass finds all of it.
  const double accuracy = NormAccuracy(measures);
  const bool norms_first = options.certify || accuracy == linalg::kExactNorm;
  std::vector<double> norms(lanes, 0.0);
  if (norms_first) {
    ESS_ASSIGN_OR_RETURN(norms, spectra.MaxSpectralNorms(accuracy, cancellation));
    ESS_RETURN_IF_ERROR(CheckNorms(norms, heads));
  }
  const auto make_plans = [&] {
    std::vector<HeadMeasures> plans;
    for (const int64_t head : heads) {
      plans.emplace_back(measures, options, positions, norms[head % lanes], Route::kChannelWindows);
    }
    return plans;
  };
  std::vector<HeadMeasures> plans = make_plans();
  linalg::ChannelRequest request = JoinRequests(plans, heads, lanes);
  request.max_norm_accuracy = norms_first ? 0 : accuracy;
  ESS_ASSIGN_OR_RETURN(const linalg::ChannelAnswers answers,
                       spectra.Compute(request, cancellation));
  if (!norms_first) {
    norms = answers.max_spectral_norms;
    ESS_RETURN_IF_ERROR(CheckNorms(norms, heads));
    plans = make_plans();
  }
  std::vector<double> frobenius;
  std::vector<int32_t> causal;
  for (const Measure& measure : measures) {
    if (measure.kind == Measure::Kind::kFrobeniusNorm) {
      ESS_ASSIGN_OR_RETURN(frobenius, spectra.FrobeniusNorms(cancellation));
    } else if (measure.kind == Measure::Kind::kCausal) {
      ESS_ASSIGN_OR_RETURN(causal, spectra.CausalRanks(cancellation));
    }
  }
  std::vector<HeadEss> results;
  for (size_t p = 0; p < plans.size(); ++p) {
    const int64_t lane = heads[p] % lanes;
    const auto sigma = [&](int64_t position) {
      return spectra.SingularValues(lane, position, cancellation);
    };
    const auto frobenius_of_lane = [&] { return Lane<double>(frobenius, 0, length, lane, lanes); };
    const auto causal_of_lane = [&]() -> absl::StatusOr<std::vector<int32_t>> {
      return Lane<int32_t>(causal, 0, length, lane, lanes);
    };
    std::optional<linalg::Spectrum> spectrum;
    if (!plans[p].Empty()) {
      spectrum = LaneSpectrum(answers, plans[p].request(), length, lane, lanes);
    }
    ESS_ASSIGN_OR_RETURN(
        HeadEss ess, plans[p].Evaluate(spectrum ? &*spectrum : nullptr,
                                       {sigma, frobenius_of_lane, causal_of_lane}, cancellation));
    ess.noise_floor = NoiseFloor(op, norms[lane]);
    results.push_back(std::move(ess));
  }
  return results;
}

}  // namespace ess
