#include "server/ess/head_ess.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/linalg/matrix_scan.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/sequence_operator.h"

namespace ess {
namespace {

absl::Status LoadMatrix(const operators::SequenceOperator& op, int64_t head,
                        std::vector<double>& matrix) {
  const int64_t length = op.length();
  matrix.resize(length * length);
  op.DenseHead(head, matrix);
  if (linalg::AllFinite(matrix)) return absl::OkStatus();
  const auto entry = std::find_if_not(matrix.begin(), matrix.end(),
                                      [](double value) { return std::isfinite(value); });
  const int64_t index = entry - matrix.begin();
  return absl::InternalError(fmt::format("operator of head {}: entry [{}, {}] is {}", head,
                                         index / length, index % length, *entry));
}

// The largest first singular value that `singular_values` gives, over all positions.
absl::StatusOr<double> LargestBySvd(
    int64_t length, absl::FunctionRef<absl::StatusOr<std::vector<double>>(int64_t)> singular_values,
    const CancellationToken& cancellation) {
  double largest = 0;
  for (int64_t position = 1; position < length; ++position) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    ESS_ASSIGN_OR_RETURN(const std::vector<double> sigma, singular_values(position));
    if (!sigma.empty()) largest = std::max(largest, sigma[0]);
  }
  return largest;
}

// One head's computation, from its operator to its values.
class HeadComputation {
 public:
  HeadComputation(const operators::SequenceOperator& op, int64_t head, const EssOptions& options,
                  Route route, HeadWork& work, const CancellationToken& cancellation)
      : op_(op),
        head_(head),
        options_(options),
        route_(route),
        work_(work),
        cancellation_(cancellation) {}

  absl::StatusOr<HeadEss> Run(std::span<const int64_t> positions,
                              std::span<const Measure> measures) {
    ESS_RETURN_IF_ERROR(Prepare());
    const auto block = [this](int64_t position) { return spectra_->SingularValues(position); };
    const auto cut_block = [this](int64_t position) { return CutBlock(position); };
    const double accuracy = NormAccuracy(measures);
    absl::StatusOr<double> norm = spectra_->MaxSpectralNorm(accuracy, cancellation_);
    if (norm.status().code() == absl::StatusCode::kAborted) {
      norm = LargestBySvd(op_.length(), block, cancellation_);
    }
    ESS_RETURN_IF_ERROR(norm.status());
    if (!std::isfinite(*norm)) {
      return absl::InternalError(fmt::format("operator of head {}: overflows float64", head_));
    }
    double largest = *norm;
    if (options_.horizon && accuracy == linalg::kExactNorm) {
      ESS_ASSIGN_OR_RETURN(largest, LargestBySvd(op_.length(), cut_block, cancellation_));
    }
    const HeadMeasures head(measures, options_, positions, largest, route_);
    ESS_RETURN_IF_ERROR(AskMainRoute(head, *norm));
    const auto frobenius = [this] { return spectra_->FrobeniusNorms(); };
    const auto causal = [this] { return CausalRanks(); };
    const linalg::Spectrum* spectrum = spectrum_.ok() ? &*spectrum_ : nullptr;
    ESS_ASSIGN_OR_RETURN(
        HeadEss ess, options_.horizon
                         ? head.Evaluate(spectrum, {cut_block, frobenius, causal}, cancellation_)
                         : head.Evaluate(spectrum, {block, frobenius, causal}, cancellation_));
    ess.noise_floor = NoiseFloor(op_, *norm);
    return ess;
  }

 private:
  absl::Status Prepare() {
    if (route_ != Route::kInertiaTree) native_ = op_.NativeSpectra(head_);
    if (native_ != nullptr && linalg::AllFinite(native_->FrobeniusNorms())) {
      spectra_ = native_.get();
      return absl::OkStatus();
    }
    // Also where products of the factors overflow: T has the entry to name.
    native_.reset();
    ESS_RETURN_IF_ERROR(LoadMatrix(op_, head_, work_.matrix));
    ESS_RETURN_IF_ERROR(cancellation_.Check());
    spectra_ = &work_.dense;
    return work_.dense.Load(work_.matrix, op_.length(), op_.symmetry(), cancellation_);
  }

  // A route that aborts leaves everything to SVD.
  absl::Status AskMainRoute(const HeadMeasures& head, double norm) {
    if (head.Empty() || norm == 0) return absl::OkStatus();
    spectrum_ = spectra_->Compute(head.request(), cancellation_);
    const bool aborted = spectrum_.status().code() == absl::StatusCode::kAborted;
    return aborted ? absl::OkStatus() : spectrum_.status();
  }

  absl::StatusOr<std::vector<double>> CutBlock(int64_t position) const {
    const int64_t rows = std::min(*options_.horizon, op_.length() - position);
    ESS_ASSIGN_OR_RETURN(std::vector<double> sigma,
                         linalg::BlockSingularValues(work_.matrix, op_.length(), position, rows));
    for (double& value : sigma) value *= work_.dense.scale();
    return sigma;
  }

  absl::StatusOr<std::vector<int32_t>> CausalRanks() const {
    if (native_ != nullptr) return native_->CausalRanks(cancellation_);
    return op_.NativeSpectra(head_)->CausalRanks(cancellation_);
  }

  const operators::SequenceOperator& op_;
  const int64_t head_;
  const EssOptions& options_;
  const Route route_;
  HeadWork& work_;
  const CancellationToken& cancellation_;
  std::unique_ptr<linalg::BlockSpectra> native_;
  linalg::BlockSpectra* spectra_ = nullptr;
  absl::StatusOr<linalg::Spectrum> spectrum_ = absl::AbortedError("not asked");
};

}  // namespace

absl::StatusOr<HeadEss> ComputeHead(const operators::SequenceOperator& op, int64_t head,
                                    std::span<const int64_t> positions,
                                    std::span<const Measure> measures, const EssOptions& options,
                                    Route route, HeadWork& work,
                                    const CancellationToken& cancellation) {
  return HeadComputation(op, head, options, route, work, cancellation).Run(positions, measures);
}

}  // namespace ess
