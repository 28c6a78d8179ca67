// The measures of one head: what they need of its spectrum, and their values once it is known.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/ess/ess_options.h"
#include "server/ess/measure.h"
#include "server/ess/route.h"
#include "server/linalg/block_spectra.h"

namespace ess {

// Below this share of max_i sigma_1(H_i) rounding decides the counts of every fast route; SVD does
// not mind (docs/ess.md).
inline constexpr double kSmallestFastTolerance = 1e-7;

// What one head contributes to OperatorEss.
struct HeadEss {
  std::vector<std::vector<float>> values;     // [measure][positions * ValuesPerPosition()]
  std::vector<std::vector<uint8_t>> certain;  // Aligned with `values`, with `certify`; else empty.
  std::vector<RouteSet> routes;               // [measure]
  double noise_floor = 0;
};

// eps(dtype of the features) * max_spectral_norm * sqrt(L): docs/ess.md, "Noise floor".
double NoiseFloor(const operators::SequenceOperator& op, double max_spectral_norm);

// How closely the measures need a head's max_i sigma_1(H_i) (block_spectra.h): only
// `head_relative` counts above a share of it.
double NormAccuracy(std::span<const Measure> measures);

// What the measures need beyond the spectrum, looked up when it is needed.
struct HeadSources {
  // All singular values of the block at a position, in descending order.
  absl::FunctionRef<absl::StatusOr<std::vector<double>>(int64_t position)> singular_values;
  absl::FunctionRef<std::vector<double>()> frobenius_norms;
  absl::FunctionRef<absl::StatusOr<std::vector<int32_t>>()> causal_ranks;
};

// One head of length L whose largest sigma_1 over all positions is `max_spectral_norm`.
class HeadMeasures {
 public:
  // `positions` and `measures` outlive it. With a horizon every measure of H_i goes by SVD.
  HeadMeasures(std::span<const Measure> measures, const EssOptions& options,
               std::span<const int64_t> positions, double max_spectral_norm, Route main_route);

  // What to ask the main route for. The number of tolerances and fractions depends on the measures
  // and options alone. Nothing asked: Empty().
  const linalg::SpectrumRequest& request() const { return request_; }
  bool Empty() const;

  // The values. `spectrum` answers request(), or is null when the main route could not.
  // Errors: those of the sources; kCancelled, kDeadlineExceeded between two SVDs.
  absl::StatusOr<HeadEss> Evaluate(const linalg::Spectrum* spectrum, const HeadSources& sources,
                                   const CancellationToken& cancellation) const;

 private:
  // A measure that counts, and where its counts are in the spectrum.
  struct Count {
    size_t measure;
    bool relative;  // Among the fractions, else among the tolerances.
    size_t index;   // The first of one, or of two with `certify`: a little below and above.
    double value;   // The tolerance or fraction.
    bool by_svd;    // Too small for every fast route.
  };

  void AddCount(size_t measure, bool relative, double value);
  // Whether the fast count at a position stands, and its value.
  bool ReadCount(const Count& count, const linalg::Spectrum& spectrum, int64_t position,
                 float& value) const;
  void ReadSpectrum(const linalg::Spectrum& spectrum, HeadEss& ess,
                    std::vector<std::vector<uint8_t>>& missing) const;
  absl::Status FillBySvd(const std::vector<std::vector<uint8_t>>& missing,
                         const HeadSources& sources, const CancellationToken& cancellation,
                         HeadEss& ess) const;
  RouteSet RoutesOf(size_t measure, std::span<const uint8_t> missing) const;
  bool IsCertain(const Measure& measure, std::span<const double> sigma) const;

  const std::span<const Measure> measures_;
  const EssOptions options_;
  const std::span<const int64_t> positions_;
  const double max_spectral_norm_;
  const Route main_route_;
  linalg::SpectrumRequest request_;
  std::vector<Count> counts_;
};

}  // namespace ess
