#include "server/ess/tensor_ess.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/base/status_macros.h"
#include "server/linalg/tensor_spectra.h"
#include "server/operators/sequence_operator.h"

namespace ess {
namespace {

// The requests of all heads in one: they differ in their tolerances only.
linalg::TensorSpectraRequest JoinRequests(std::span<const HeadMeasures> plans) {
  const linalg::SpectrumRequest& first = plans.front().request();
  linalg::TensorSpectraRequest joined{.tolerances = {},
                                      .fractions = first.fractions,
                                      .spectral_norms = first.spectral_norms,
                                      .entropies = first.entropies};
  joined.tolerances.resize(first.tolerances.size());
  for (const HeadMeasures& plan : plans) {
    for (size_t t = 0; t < joined.tolerances.size(); ++t) {
      joined.tolerances[t].push_back(plan.request().tolerances[t]);
    }
  }
  return joined;
}

bool HasFrobenius(std::span<const Measure> measures) {
  return std::any_of(measures.begin(), measures.end(), [](const Measure& measure) {
    return measure.kind == Measure::Kind::kFrobeniusNorm;
  });
}

}  // namespace

absl::StatusOr<std::vector<HeadEss>> ComputeByTensors(const operators::SequenceOperator& op,
                                                      std::span<const int64_t> heads,
                                                      std::span<const int64_t> positions,
                                                      std::span<const Measure> measures,
                                                      const EssOptions& options,
                                                      int64_t byte_budget, HeadWork& work,
                                                      const CancellationToken& cancellation) {
  ESS_ASSIGN_OR_RETURN(
      linalg::TensorSpectra spectra,
      linalg::TensorSpectra::Create(*op.dense_maps(), heads, byte_budget, cancellation));
  ESS_ASSIGN_OR_RETURN(const std::vector<double> norms,
                       spectra.MaxSpectralNorms(NormAccuracy(measures), cancellation));
  std::vector<HeadMeasures> plans;
  for (const double norm : norms) {
    // Where it is not known, the host answers below.
    plans.emplace_back(measures, options, positions, std::isfinite(norm) ? norm : 1.0,
                       Route::kTensorTree);
  }
  std::vector<linalg::Spectrum> spectrum;
  if (!plans.front().Empty()) {
    ESS_ASSIGN_OR_RETURN(spectrum, spectra.Compute(JoinRequests(plans), cancellation));
  }
  std::vector<std::vector<double>> frobenius;
  if (HasFrobenius(measures)) {
    ESS_ASSIGN_OR_RETURN(frobenius, spectra.FrobeniusNorms(cancellation));
  }
  std::vector<HeadEss> results;
  for (size_t h = 0; h < heads.size(); ++h) {
    if (!std::isfinite(norms[h])) {
      ESS_ASSIGN_OR_RETURN(results.emplace_back(),
                           ComputeHead(op, heads[h], positions, measures, options,
                                       Route::kInertiaTree, work, cancellation));
      continue;
    }
    const auto sigma = [&](int64_t position) { return spectra.SingularValues(h, position); };
    const auto frobenius_of_head = [&] { return frobenius[h]; };
    const auto causal = [&]() -> absl::StatusOr<std::vector<int32_t>> {
      return absl::InternalError("a dense operator has no causal rank");
    };
    ESS_ASSIGN_OR_RETURN(HeadEss ess,
                         plans[h].Evaluate(spectrum.empty() ? nullptr : &spectrum[h],
                                           {sigma, frobenius_of_head, causal}, cancellation));
    ess.noise_floor = NoiseFloor(op, norms[h]);
    results.push_back(std::move(ess));
  }
  return results;
}

}  // namespace ess
